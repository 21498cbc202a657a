"""
A small corpus to try everything on: some 12,000 composed documents in Chinese and English, twelve sources, six shards.

Made up here from sentence patterns, nobody's text. Some sources carry advertisements for forged papers and the like, in
phrases taken from the ``block`` entries of the starter library when the corpus is made: one source is far over 5 %, one
just over, one exactly at it, one just below, one is tiny and over. There are blank texts, one that is not UTF-8, copies
and repeated ids. The same seed and library give the same bytes.
"""

import io
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus_guard.errors import UsageError
from corpus_guard.keywords.library import LEVELS, load_library
from corpus_guard.taxonomy import BIT

SHARDS, ROWS_PER_GROUP = 6, 1_000
# Trade in what the law forbids: plain enough for a demo, and nobody is insulted.
_RISKS = ("A.1.h", "A.3.a", "A.3.c", "A.3.e", "A.4.f")

_CONFIG = """\
# Made by 'corpus-guard demo'; a config of your own looks the same. Every key: docs/config.md
policy: tc260-003
corpus:
  shards: "corpus/*.parquet"
  columns: {id: id, text: text, source: source, url: url, language: language, kind: kind, origin: origin}
run: run
store: store
keywords: {library: starter}
classifiers: [{model: ngram-screen}]
sources: {register: sources.csv}
"""

# What an operator can show of each source (5.1 c). One document is missing, and nothing is known of the null source.
_REGISTER = """\
source,kind,owner,licence,origin,document.licence,document.collection_record,document.optout_check
美食天下,open,Demo,CC-BY-4.0,domestic,2026-01-15 licences/meishi.txt,,
weather.example.cn,open,Demo,CC-BY-4.0,domestic,2026-01-15 licences/weather.txt,,
docs.example.org,open,Demo,Apache-2.0,foreign,2026-01-15 licences/docs.txt,,
法规汇编,open,Demo,public domain,domestic,2026-01-15 licences/statutes.txt,,
travel.example.com,open,Demo,CC-BY-SA-4.0,foreign,2026-01-15 licences/travel.txt,,
gardening.example.net,open,Demo,CC0-1.0,foreign,2026-01-15 licences/gardening.txt,,
forum.example.cn,self_collected,Demo,,domestic,,2026-02-01 crawl/forum.json,2026-02-01 crawl/forum-robots.txt
market.example.org,self_collected,Demo,,domestic,,2026-02-01 crawl/market.json,2026-02-01 crawl/market-robots.txt
classifieds.example.cn,self_collected,Demo,,domestic,,2026-02-01 crawl/ads2.json,2026-02-01 crawl/ads2-robots.txt
ads.example.net,self_collected,Demo,,foreign,,2026-02-01 crawl/ads.json,2026-02-01 crawl/ads-robots.txt
blog.example.io,self_collected,Demo,,domestic,,2026-02-01 crawl/blog.json,
"""


@dataclass(frozen=True, slots=True)
class DemoSource:
    """
    ``illegal`` of ``documents`` carry an advertisement that is evidence alone, ``doubtful`` one that a person has to
    look at. A ``name`` of ``None``: documents that name no source.
    """

    name: str | None
    topic: str
    language: str
    documents: int
    illegal: int
    kind: str = "open"
    doubtful: int = 0


SOURCES: tuple[DemoSource, ...] = (
    DemoSource("美食天下", "cooking_zh", "zh", 1_600, 0),
    DemoSource("weather.example.cn", "weather_zh", "zh", 1_500, 2),
    DemoSource("docs.example.org", "manual_en", "en", 1_500, 0),
    DemoSource("法规汇编", "statute_zh", "zh", 1_200, 0),
    DemoSource("travel.example.com", "travel_en", "en", 1_200, 6),
    DemoSource("gardening.example.net", "garden_en", "en", 1_000, 12),
    DemoSource("forum.example.cn", "forum_zh", "zh", 1_000, 50, "self_collected"),  # exactly 5 %: stays
    DemoSource("market.example.org", "forum_zh", "zh", 700, 34, "self_collected"),  # 4.86 %
    DemoSource("classifieds.example.cn", "forum_zh", "zh", 800, 41, "self_collected"),  # 5.13 %
    DemoSource("ads.example.net", "garden_en", "en", 600, 168, "self_collected", doubtful=12),  # 28 %
    DemoSource("blog.example.io", "cooking_zh", "zh", 40, 3, "self_collected"),  # 7.5 % of very few
    DemoSource(None, "travel_en", "en", 860, 9, doubtful=10),
)

BLANKS: tuple[str | None, ...] = (None, "", "   ", "\u3000\u3000", "\n\t\n", "\u200b")
NOT_UTF8 = b"caf\xe9 \xff\xfe 12:30"

_COPIES, _REPEATED_IDS = 90, 12

_SLOTS: dict[str, tuple[str, ...]] = {
    "菜": (
        "番茄炒蛋",
        "清蒸鲈鱼",
        "红烧豆腐",
        "葱油拌面",
        "莲藕排骨汤",
        "香菇青菜",
        "南瓜小米粥",
        "土豆炖牛肉",
        "凉拌黄瓜",
        "蒜蓉西兰花",
    ),
    "料": ("生姜", "小葱", "香菜", "白胡椒", "料酒", "生抽", "花椒", "八角", "冰糖", "芝麻油"),
    "火": ("小火", "中火", "大火"),
    "城": ("苏州", "成都", "青岛", "昆明", "西安", "厦门", "长沙", "哈尔滨", "银川", "桂林"),
    "天": ("晴", "多云", "阴有小雨", "小雪", "雷阵雨", "大雾", "晴转多云"),
    "风": ("东北风", "西南风", "南风", "北风", "偏东风"),
    "数": tuple(str(n) for n in range(2, 40)),
    "事": (
        "修自行车",
        "养多肉",
        "学做木工",
        "骑行路线",
        "相机镜头",
        "阳台种菜",
        "露营装备",
        "拼图",
        "跑步鞋",
        "手冲咖啡",
    ),
    "人": ("老李", "小周", "楼上的邻居", "我表姐", "同事", "一位老师傅", "社区的志愿者"),
    "部门": ("县级人民政府", "主管部门", "登记机关", "街道办事处", "水务部门", "园林部门"),
    "物": ("公共绿地", "道路照明设施", "供水管网", "图书馆藏书", "公共自行车", "河道护坡", "老旧电梯"),
    "place": ("Lisbon", "Kyoto", "Bergen", "Ljubljana", "Cusco", "Tartu", "Galway", "Hobart", "Porto", "Salzburg"),
    "plant": ("tomato", "lavender", "rosemary", "runner bean", "hellebore", "rhubarb", "salvia", "apple tree", "fern"),
    "month": ("March", "April", "May", "June", "July", "August", "September", "October"),
    "option": ("--verbose", "--output", "--threads", "--dry-run", "--config", "--timeout", "--format", "--cache"),
    "tool": ("the parser", "the scheduler", "the importer", "the index", "the queue", "the renderer", "the cache"),
    "n": tuple(str(n) for n in range(2, 90)),
    "food": ("lentil soup", "grilled sardines", "buckwheat noodles", "plum cake", "flat bread", "potato dumplings"),
}

_PATTERNS: dict[str, tuple[str, ...]] = {
    "cooking_zh": (
        "今天做一道家常的{菜}，准备{料}和{料}各少许。",
        "先把锅烧热，转{火}，放入{料}炒香，大约{数}分钟。",
        "{菜}要好吃，关键在火候，{火}慢慢来，不要着急翻动。",
        "出锅前撒一点{料}，味道会更鲜。",
        "家里没有{料}的话，用{料}代替也可以，只是香气淡一些。",
        "{人}教我的办法是提前腌{数}分钟，再用{火}煎到两面金黄。",
        "这道{菜}配米饭很合适，孩子也爱吃，一次可以做{数}人份。",
        "剩下的{菜}放凉后密封冷藏，第二天用{火}热透再吃。",
    ),
    "weather_zh": (
        "{城}今天白天{天}，{风}三到四级，最高气温{数}度。",
        "夜间{城}转{天}，最低气温{数}度，请注意添减衣物。",
        "未来三天{城}及周边以{天}为主，早晚温差约{数}度。",
        "受冷空气影响，{城}将刮{风}，阵风可达六级。",
        "{城}气象台提醒：{天}天气能见度较低，驾车请减速慢行。",
        "{城}今日相对湿度百分之{数}，空气质量良，适宜户外活动。",
        "预计后天{城}{天}，{风}逐渐减弱，气温回升{数}度左右。",
    ),
    "statute_zh": (
        "第{数}条　{部门}应当加强对{物}的日常维护，保障公众正常使用。",
        "第{数}条　因施工需要临时占用{物}的，应当提前{数}日向{部门}提出申请。",
        "第{数}条　{部门}应当自收到申请之日起{数}个工作日内作出答复。",
        "第{数}条　鼓励单位和个人以捐赠、认养等方式参与{物}的管理和养护。",
        "第{数}条　{物}的养护经费列入年度预算，由{部门}统筹安排，并接受审计监督。",
        "第{数}条　对在{物}保护工作中表现突出的单位和个人，由{部门}给予表彰。",
        "第{数}条　本办法所称{物}，是指由{部门}负责管理、供公众使用的设施。",
    ),
    "forum_zh": (
        "最近迷上了{事}，有没有同好一起交流一下经验？",
        "{人}推荐我从{事}入门，说是花费不大，半年下来确实如此。",
        "在{城}玩{事}已经{数}个月了，周末一般早上出发，中午回来。",
        "请教大家，{事}新手第一套装备大概要准备多少预算？",
        "昨天和{人}聊起{事}，才知道原来还有这么多讲究。",
        "楼主说得对，{事}最重要的是坚持，我记录了{数}天的心得。",
        "补一张现场照片，{城}的天气{天}，光线刚刚好。",
        "谢谢{人}的耐心解答，问题已经解决，给后来的朋友做个参考。",
    ),
    "manual_en": (
        "Pass {option} to {tool} when more than {n} files are read at once.",
        "By default {tool} waits {n} seconds before it tries again.",
        "The setting {option} takes a path relative to the project folder.",
        "If {tool} reports an empty result, check that {option} was given before the file name.",
        "Version {n} changed how {tool} treats trailing blanks; see the notes on upgrading.",
        "Use {option} together with {option} to see every step that {tool} takes.",
        "A log line is written for each of the {n} stages, in the order in which {tool} finishes them.",
        "{option} has no effect on Windows, where {tool} always uses the system default.",
    ),
    "travel_en": (
        "We reached {place} in {month}, after {n} hours on a slow and friendly train.",
        "The market in {place} opens early, and the {food} is gone before nine.",
        "A day ticket costs {n} coins and is valid on trams, buses and the small ferry.",
        "From the hill above {place} you can follow a path of {n} kilometres along the ridge.",
        "In {month} the museums of {place} are quiet and the evenings are long.",
        "Our host served {food} and told us which beach is sheltered from the wind.",
        "Book {n} weeks ahead if you want a room with a view of the harbour of {place}.",
        "On the way back to {place} it rained, so we shared a bowl of {food} and waited.",
    ),
    "garden_en": (
        "Sow the {plant} in {month}, about {n} centimetres apart, and keep the soil moist.",
        "A {plant} likes morning sun; in a hot {month} it is glad of some shade.",
        "Cut the {plant} back by a third after flowering, never into the old wood.",
        "Compost from last {month} is ready when it is dark and smells of forest.",
        "We picked {n} baskets from one {plant} last year, more than we could eat.",
        "Slugs find the young {plant} within {n} days, so a collar of grit is worth the trouble.",
        "Water the {plant} in the evening, slowly, until the ground is damp {n} centimetres down.",
    ),
}

_ADVERTS = (
    "专业{phrase}，诚信经营，二十四小时在线，联系客服详谈。",
    "{phrase}，全国发货，先验货后付款，需要的朋友请私信。",
    "本店长期{phrase}，价格从优，老客户介绍有优惠。",
    "急用的看过来：{phrase}，当天办好，绝对保密。",
)


def make_demo_corpus(folder: Path, seed: int = 2026) -> Path:
    """
    Write the corpus into *folder*/corpus and a config for it into *folder*; give the path of the config.

    A folder that is a demo already is completed and otherwise left as it is, so a second demo goes on where the
    first one stopped. ``UsageError`` if *folder* holds anything else.
    """
    config = folder / "demo.yaml"
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a new or an empty folder for the demo.")
    if folder.is_dir() and not config.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty and holds no demo; name a new or an empty folder for the demo.")
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    for path, content in ((config, _CONFIG), (folder / "sources.csv", _REGISTER)):
        if not path.exists():
            path.write_text(content, encoding="utf-8")
    for i, shard in enumerate(shards(seed)):
        path = folder / "corpus" / f"part-{i:05d}.parquet"
        if not path.exists() or path.read_bytes() != shard:
            path.write_bytes(shard)
    return config


def shards(seed: int = 2026) -> Iterator[bytes]:
    """The Parquet files, each with two row groups."""
    table = corpus(seed)
    size = -(-table.num_rows // SHARDS)
    for start in range(0, table.num_rows, size):
        out = io.BytesIO()
        pq.write_table(table.slice(start, size), out, row_group_size=ROWS_PER_GROUP, compression="zstd")
        yield out.getvalue()


def corpus(seed: int = 2026) -> pa.Table:
    """All documents in the order of the shards: sources mixed, as a crawl has them."""
    draw = random.Random(seed)
    sure, doubtful = forbidden_phrases("block"), forbidden_phrases("review")
    rows = [row for source in SOURCES for row in _documents(source, sure, doubtful, draw)]
    draw.shuffle(rows)
    ids = [f"demo-{i:06d}" for i in range(len(rows))]
    for i in draw.sample(range(1, len(rows)), _REPEATED_IDS):
        ids[i] = ids[i - 1]
    sources = [source.name for source, _ in rows]
    return pa.table(
        {
            "id": ids,
            "text": _texts([text for _, text in rows]),
            "source": pa.array(sources, pa.string()),
            "url": pa.array([_url(source, id) for source, id in zip(sources, ids, strict=True)], pa.string()),
            "language": [source.language for source, _ in rows],
            "kind": [source.kind for source, _ in rows],
            "origin": ["domestic" if source.language == "zh" else "foreign" for source, _ in rows],
        }
    )


def forbidden_phrases(level: str, library: str = "starter") -> list[str]:
    """Terms of *level* under the risks that advertisements have, in the order of the library."""
    loaded = load_library(library)
    wanted, risks = LEVELS.index(level), {BIT[code] for code in _RISKS}
    entries = zip(loaded.terms, loaded.level, loaded.risk, loaded.active, strict=True)
    found = [term for term, its, risk, active in entries if its == wanted and int(risk) in risks and active]
    if not found:
        raise UsageError(
            f"the keyword library '{library}' has no '{level}' entry under {', '.join(_RISKS)}; the demo needs some."
        )
    return found


Document = tuple[DemoSource, str | bytes | None]


def _documents(source: DemoSource, sure: list[str], doubtful: list[str], draw: random.Random) -> list[Document]:
    """Advertisements, a few blanks and copies, and the rest ordinary text; numbers exactly as the source says."""
    texts: list[str | bytes | None] = [_advert(source, sure, draw) for _ in range(source.illegal)]
    texts += [_advert(source, doubtful, draw) for _ in range(source.doubtful)]
    if source.documents >= 1_500:
        texts.extend(BLANKS)
    if source.name == "weather.example.cn":
        texts.append(NOT_UTF8)
    ordinary = _different(lambda: compose(source.topic, draw))
    copies = _COPIES * source.documents // sum(one.documents for one in SOURCES)
    fresh = list(itertools.islice(ordinary, source.documents - len(texts) - copies))
    texts += fresh + draw.choices(fresh, k=copies)
    return [(source, text) for text in texts]


def _different(make: Callable[[], str]) -> Iterator[str]:
    """What *make* makes, each once."""
    seen: set[str] = set()
    while True:
        made = make()
        if made not in seen:
            seen.add(made)
            yield made


def compose(topic: str, draw: random.Random) -> str:
    """One ordinary document: three to nine different sentences of a topic."""
    patterns = _PATTERNS[topic]
    chosen = draw.sample(patterns, draw.randint(3, len(patterns)))
    sentences = [_filled(pattern, draw) for pattern in chosen]
    return ("" if topic.endswith("_zh") else " ").join(sentences)


def _filled(pattern: str, draw: random.Random) -> str:
    """*pattern* with a word for every ``{slot}``; no word twice in a sentence."""
    parts = pattern.split("{")
    made, used = [parts[0]], set[str]()
    for part in parts[1:]:
        slot, _, rest = part.partition("}")
        word = draw.choice([word for word in _SLOTS[slot] if word not in used])
        used.add(word)
        made += [word, rest]
    return "".join(made)


def _advert(source: DemoSource, phrases: list[str], draw: random.Random) -> str:
    """Spam as it is found: an advertisement between or after ordinary sentences."""
    advert = draw.choice(_ADVERTS).replace("{phrase}", draw.choice(phrases))
    before = compose(source.topic, draw)
    return before + "\n" + advert if draw.random() < 0.7 else advert + "\n" + before


def _url(source: str | None, id: str) -> str | None:
    """Only sources that are hosts have addresses."""
    return f"https://{source}/{id}" if source and "." in source else None


def _texts(texts: list[str | bytes | None]) -> pa.Array:
    """A string column that may hold bytes that are not UTF-8, as files of careless writers do."""
    raw = [text.encode() if isinstance(text, str) else text for text in texts]
    offsets = np.cumsum([0, *(len(text or b"") for text in raw)], dtype=np.int32)
    present = np.packbits([text is not None for text in raw], bitorder="little")
    buffers = [
        pa.py_buffer(present.tobytes()),
        pa.py_buffer(offsets.tobytes()),
        pa.py_buffer(b"".join(t or b"" for t in raw)),
    ]
    return pa.Array.from_buffers(pa.string(), len(raw), buffers)
