"""What a model folder may say, and what is refused in it, without loading any model."""

import json
import pickle

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from corpus_guard.classifiers import coverage, load_model, recipe
from corpus_guard.errors import UsageError
from corpus_guard.taxonomy import CODES

DESCRIPTION = {
    "name": "guard",
    "licence": "MIT",
    "languages": ["zh", "en"],
    "activation": "sigmoid",
    "windows": {"size": 510, "stride": 382},
    "pooling": "max",
    "labels": {
        "porn": {"risks": ["A.1.f"], "relation": "<", "threshold": {"upper": 0.9, "lower": 0.3}},
        "hate": {"risks": ["A.2.a", "A.2.d"], "relation": ">", "threshold": {"upper": 0.8}},
        "safe": "ignore",
    },
    "evaluation": {"A.1.f": {"status": "usable", "positives": 120, "ap": 0.8}},
}
CONFIG = {
    "model_type": "bert",
    "id2label": {"0": "porn", "1": "hate", "2": "safe"},
    "max_position_embeddings": 512,
}


@pytest.fixture
def folder(tmp_path):
    """A folder that looks like a checkpoint; its weights are a single number."""
    made = tmp_path / "guard"
    made.mkdir()
    save_file({"weight": np.zeros(1, np.float32)}, made / "model.safetensors")
    (made / "tokenizer.json").write_text("{}")
    describe(made)
    configure(made)
    return made


def describe(folder, **changes):
    (folder / "corpus_guard.yaml").write_text(yaml.safe_dump(DESCRIPTION | changes, sort_keys=False))


def configure(folder, **changes):
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))


def faults(folder):
    with pytest.raises(UsageError) as error:
        load_model(folder)
    return str(error.value).splitlines()


def test_a_folder_says_its_labels_in_the_order_of_the_outputs(folder):
    describe(folder, labels=dict(reversed(DESCRIPTION["labels"].items())))

    model = load_model(folder)

    assert [label.name for label in model.labels] == ["porn", "hate", "safe"]
    assert [label.decided and bool(label.risks) for label in model.labels] == [True, False, False]
    assert (model.windows.size, model.windows.stride, model.pooling.way) == (510, 382, "max")
    assert (model.name, model.licence, model.languages, model.positions) == ("guard", "MIT", ("zh", "en"), 512)
    assert model.evaluation["A.1.f"].ap == 0.8


def test_all_faults_are_told_at_once_with_their_lines(folder):
    describe(
        folder,
        colour="red",
        activation="sigmiod",
        windows={"size": 10, "stride": 20},
        pooling="mean",
        labels={
            "porn": {"risks": ["A.1.z"], "threshold": {"upper": 0.2, "lower": 0.4}},
            "spam": {"risks": ["A.1.h"]},
            "safe": {"risks": ["A.1.a", "A.1.b"], "calibration": {"platt": {"a": -1, "b": 0}}},
        },
        evaluation={"A.1.f": {"status": "fine"}},
    )

    told = faults(folder)

    for part in (
        "unknown key 'colour'",
        "did you mean 'sigmoid'?",
        "'stride' 20 is over 'size' 10",
        "'pooling' must be max, noisy_or or {top_k_mean: k}",
        "unknown risk 'A.1.z'",
        "'lower' 0.4 is over 'upper' 0.2",
        "the model has no label 'spam'",
        "label 'hate' of the model is not mapped",
        "label 'safe' cannot be the same as several risks",
        "'platt' needs numbers 'a', over 0, and 'b'",
        "'status' must be one of usable, weak, no data",
    ):
        assert any(part in line for line in told), part
    assert all(line.startswith(str(folder / "corpus_guard.yaml")) for line in told)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".pkl", ".ckpt"])
def test_pickled_weights_are_refused_and_never_opened(folder, suffix, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (folder / "model.safetensors").unlink()
    (folder / f"pytorch_model{suffix}").write_bytes(pickle.dumps(Trap()))

    told = faults(folder)

    assert any(f"pytorch_model{suffix}" in line and "safetensors" in line for line in told)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_a_checkpoint_brings_along_is_refused(folder, file):
    own = {"auto_map": {"AutoModel": "modeling.Own"}}
    (folder / file).write_text(json.dumps((CONFIG if file == "config.json" else {}) | own))

    assert any("asks for code of its own ('auto_map')" in line and file in line for line in faults(folder))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()

    assert any(f"'{file}'" in line for line in faults(folder))


def test_a_checkpoint_that_was_cut_off_while_copying_is_found_out(folder):
    save_file({"weight": np.zeros(1000, np.float32)}, folder / "model.safetensors")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])

    assert any("no whole safetensors file" in line for line in faults(folder))


def test_weights_in_several_files_must_all_be_there_and_inside_the_folder(folder):
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "../other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    told = faults(folder)

    assert any("'model-2.safetensors'" in line for line in told)
    assert any("does not name weight files of this folder" in line for line in told)


def test_broken_json_is_a_sentence_and_no_traceback(folder):
    (folder / "config.json").write_text("[" * 100_000)

    assert any("cannot be read as JSON" in line for line in faults(folder))


def test_a_window_longer_than_the_model_can_place_is_a_fault(folder):
    describe(folder, windows={"size": 600, "stride": 300})

    assert any("more than the 512 tokens" in line for line in faults(folder))


def test_relations_that_yaml_reads_as_something_else_are_told_to_be_quoted(folder):
    text = (folder / "corpus_guard.yaml").read_text().replace("relation: '>'", "relation: ~")
    (folder / "corpus_guard.yaml").write_text(text)

    assert any("in quotes" in line for line in faults(folder))


def test_an_unknown_name_gets_the_nearest_shipped_one():
    with pytest.raises(UsageError, match="did you mean 'ngram-screen'"):
        load_model("ngram-scren")


def test_an_adapter_outside_the_checkpoint_names_its_folder(folder, tmp_path):
    adapter = tmp_path / "adapter.yaml"
    adapter.write_text(yaml.safe_dump(DESCRIPTION | {"checkpoint": "guard"}, sort_keys=False))
    (folder / "corpus_guard.yaml").unlink()

    assert load_model(adapter).folder == tmp_path / "guard"


def test_an_adapter_without_a_checkpoint_says_what_to_do(tmp_path):
    adapter = tmp_path / "adapter.yaml"
    adapter.write_text(yaml.safe_dump(DESCRIPTION | {"repository": "owner/guard"}, sort_keys=False))

    with pytest.raises(UsageError, match=r"save owner/guard to a folder, then copy this file there"):
        load_model(adapter)


@pytest.mark.parametrize("name", ["duoguard-0.5b", "granite-guardian-hap-38m"])
def test_shipped_adapters_fit_the_labels_of_their_models(name, tmp_path):
    path = load_adapter(name, tmp_path)

    model = load_model(path)

    assert any(label.risks for label in model.labels)
    assert all(label.upper is None for label in model.labels), "no threshold without evidence of one's own"


def load_adapter(name, tmp_path):
    from corpus_guard.shipped import shipped

    folder = tmp_path / name
    folder.mkdir()
    text = shipped("models", name).read_text()
    (folder / "corpus_guard.yaml").write_text(text)
    outputs = list(yaml.safe_load(text)["labels"])
    (folder / "config.json").write_text(json.dumps(CONFIG | {"id2label": dict(enumerate(outputs))}))
    (folder / "tokenizer.json").write_text("{}")
    save_file({"weight": np.zeros(1, np.float32)}, folder / "model.safetensors")
    return folder


def test_the_digest_changes_with_what_scores_depend_on_and_with_nothing_else(folder):
    before = recipe(folder, device="cpu").digest

    describe(folder, labels=DESCRIPTION["labels"] | {"porn": {"risks": ["A.1.h"], "threshold": {"upper": 0.1}}})
    assert recipe(folder, device="cpu", batch_tokens=7).digest == before

    describe(folder, windows={"size": 509, "stride": 382})
    other_windows = recipe(folder, device="cpu").digest
    describe(folder)
    configure(folder, hidden_size=8)
    other_config = recipe(folder, device="cpu").digest
    configure(folder)
    save_file({"weight": np.ones(1, np.float32)}, folder / "model.safetensors")
    other_weights = recipe(folder, device="cpu").digest

    assert len({before, other_windows, other_config, other_weights}) == 4


def test_coverage_names_every_risk_and_tells_candidates_from_decisions(folder):
    covered = coverage([load_model(folder)])

    assert tuple(covered) == CODES
    assert [(c.status, c.positives, c.on, c.candidate) for c in covered["A.1.f"]] == [("usable", 120, True, False)]
    assert [(c.status, c.candidate) for c in covered["A.2.a"]] == [("no data", True)]
    assert covered["A.5.b"] == []
