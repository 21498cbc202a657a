"""
The 31 risks of Appendix A, by code, in the order of the text.

A set of risks travels as a ``uint32`` bit mask, bit *i* standing for ``RISKS[i]``: a column of
masks is judged with a few NumPy operations instead of a Python set per document. Policies decide
which sets matter (all 31, the 29 of A.1-A.4, the 17 of A.1-A.2); here are only names.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Risk:
    """One entry of Appendix A. The Chinese names are those of the October 2023 draft."""

    code: str
    en: str
    zh: str

    @property
    def group(self) -> str:
        """``A.1`` ... ``A.5``"""
        return self.code[:3]


RISKS: tuple[Risk, ...] = (
    Risk("A.1.a", "Subversion of state power", "煽动颠覆国家政权、推翻社会主义制度"),
    Risk("A.1.b", "Harm to national security, interests or image", "危害国家安全和利益、损害国家形象"),
    Risk("A.1.c", "Separatism, harm to unity and stability", "煽动分裂国家、破坏国家统一和社会稳定"),
    Risk("A.1.d", "Terrorism or extremism", "宣扬恐怖主义、极端主义"),
    Risk("A.1.e", "Ethnic hatred", "宣扬民族仇恨"),
    Risk("A.1.f", "Violence or obscenity and pornography", "宣扬暴力、淫秽色情"),
    Risk("A.1.g", "False and harmful information", "传播虚假有害信息"),
    Risk("A.1.h", "Other content prohibited by law", "其他法律、行政法规禁止的内容"),
    Risk("A.2.a", "Ethnic discrimination", "民族歧视内容"),
    Risk("A.2.b", "Belief discrimination", "信仰歧视内容"),
    Risk("A.2.c", "Nationality discrimination", "国别歧视内容"),
    Risk("A.2.d", "Regional-origin discrimination", "地域歧视内容"),
    Risk("A.2.e", "Gender discrimination", "性别歧视内容"),
    Risk("A.2.f", "Age discrimination", "年龄歧视内容"),
    Risk("A.2.g", "Occupational discrimination", "职业歧视内容"),
    Risk("A.2.h", "Health discrimination", "健康歧视内容"),
    Risk("A.2.i", "Other discrimination", "其他方面歧视内容"),
    Risk("A.3.a", "Infringement of intellectual property", "侵犯他人知识产权"),
    Risk("A.3.b", "Breach of business ethics", "违反商业道德"),
    Risk("A.3.c", "Disclosure of trade secrets", "泄露他人商业秘密"),
    Risk("A.3.d", "Monopoly and unfair competition", "利用算法、数据、平台等优势，实施垄断和不正当竞争行为"),
    Risk("A.3.e", "Other commercial violations", "其他商业违法违规行为"),
    Risk("A.4.a", "Harm to physical or mental health", "危害他人身心健康"),
    Risk("A.4.b", "Infringement of likeness", "侵害他人肖像权"),
    Risk("A.4.c", "Infringement of reputation", "侵害他人名誉权"),
    Risk("A.4.d", "Infringement of honour", "侵害他人荣誉权"),
    Risk("A.4.e", "Infringement of privacy", "侵害他人隐私权"),
    Risk("A.4.f", "Infringement of personal information", "侵害他人个人信息权益"),
    Risk("A.4.g", "Infringement of other lawful rights", "侵犯他人其他合法权益"),
    Risk("A.5.a", "Grossly inaccurate", "内容不准确，严重不符合科学常识或主流认知"),
    Risk("A.5.b", "Unreliable and unhelpful", "内容不可靠，虽然不包含严重错误的内容，但无法帮助使用者解答问题"),
)

CODES: tuple[str, ...] = tuple(risk.code for risk in RISKS)
GROUPS: tuple[str, ...] = ("A.1", "A.2", "A.3", "A.4", "A.5")
BIT: dict[str, int] = {code: i for i, code in enumerate(CODES)}


def mask_of(codes: Iterable[str]) -> int:
    """The bit mask of *codes*; a ``KeyError`` names a code that is not in Appendix A."""
    mask = 0
    for code in codes:
        mask |= 1 << BIT[code]
    return mask


def codes_of(mask: int) -> tuple[str, ...]:
    """The codes in *mask*, in the order of Appendix A."""
    return tuple(code for i, code in enumerate(CODES) if mask >> i & 1)
