"""Steps, stamps and the order of things: instant the second time, never half done."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts.environments import plans, run
from scripts.environments.facts import Facts
from scripts.environments.pythons import Python
from scripts.environments.run import Setup
from scripts.environments.venvs import Folder, SetupFailedError, Step, Venv, only_one, tail
from scripts.environments.verdict import Verdict

THIS = Python(sys.executable, sys.version_info[:3], True)


class Count:
    """A step's work that fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls <= self.failures:
            raise SetupFailedError("no luck")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    path = tmp_path / "env"
    path.mkdir()
    return Folder(path)


def test_a_done_step_is_not_done_again_until_its_inputs_change(
    folder: Folder, tmp_path: Path
) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("one")
    work = Count()
    step = Step("lock", "the lock", work, inputs=(lock,))
    assert folder.pending([step]) == [step]
    folder.perform(step)
    assert folder.pending([step]) == []
    lock.write_text("two")
    assert folder.pending([step]) == [step]
    assert work.calls == 1


def test_a_failed_step_is_not_stamped_and_the_next_run_goes_on_from_there(folder: Folder) -> None:
    first, second = Count(), Count(failures=1)
    steps = [Step("first", "the first", first), Step("second", "the second", second)]
    folder.perform(steps[0])
    with pytest.raises(SetupFailedError):
        folder.perform(steps[1])
    assert folder.pending(steps) == [steps[1]]
    folder.perform(steps[1])
    assert folder.pending(steps) == []
    assert (first.calls, second.calls) == (1, 2)


def test_an_interrupted_update_takes_the_old_stamp_away(folder: Folder, tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("one")
    folder.perform(Step("lock", "the lock", Count(), inputs=(lock,)))
    lock.write_text("two")
    with pytest.raises(SetupFailedError):
        folder.perform(Step("lock", "the lock", Count(failures=1), inputs=(lock,)))
    lock.write_text("one")  # as it was; but what is installed is not
    step = Step("lock", "the lock", Count(), inputs=(lock,))
    assert folder.pending([step]) == [step]


@pytest.mark.parametrize("broken", ["", "{", "[]", "[1]", "null"])
def test_a_broken_stamp_counts_as_none(folder: Folder, broken: str) -> None:
    (folder.path / "roundhouse-setup.json").write_text(broken)
    assert folder.stamps() == {}


def test_a_failing_command_shows_the_end_of_its_output(folder: Folder) -> None:
    code = "print('\\n'.join(f'line {n}' for n in range(60))); raise SystemExit(3)"
    with pytest.raises(SetupFailedError, match="Trying failed") as caught:
        folder.call([sys.executable, "-c", code], "Trying")
    assert "line 59" in str(caught.value)
    assert "line 20" not in str(caught.value)
    assert str(folder.log) in str(caught.value)
    assert folder.attempt([sys.executable, "-c", "pass"]) is None


def test_a_command_that_is_not_there(folder: Folder) -> None:
    assert "No such file" in str(folder.attempt(["/nonexistent/tool"]))


def test_tail() -> None:
    assert tail("a\nb\nc\n", 2) == "    b\n    c"


def test_two_runs_do_not_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "lock"
    waits: list[float] = []

    class GaveUp(Exception):
        pass

    def wait(seconds: float) -> None:
        waits.append(seconds)
        raise GaveUp

    monkeypatch.setattr("scripts.environments.venvs.time.sleep", wait)
    with only_one(lock), pytest.raises(GaveUp), only_one(lock):
        pytest.fail("both hold it")
    with only_one(lock):
        assert len(waits) == 1


def test_an_environment_is_made_and_stands(tmp_path: Path) -> None:
    venv = Venv(tmp_path / "env")
    venv.path.mkdir()
    (venv.path / "roundhouse-setup.log").write_text("a run that was cut off")
    made: list[list[str]] = []

    def call(argv: list[str], what: str) -> None:
        made.append(argv)
        Path(venv.interpreter).parent.mkdir(parents=True)
        Path(venv.interpreter).touch()

    venv.call = call  # type: ignore[method-assign, assignment]
    venv.make(THIS, "cpu")
    assert made == [[sys.executable, "-m", "venv", str(venv.path)]]
    assert venv.stands("cpu", None)
    assert venv.stands("cpu", THIS.minor)
    assert not venv.stands("cpu", "3.9")
    assert not venv.stands("cuda", None)


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    venv = Venv(tmp_path / "mine")
    venv.path.mkdir()
    (venv.path / "thesis.txt").write_text("years of work")
    with pytest.raises(SetupFailedError, match="is in the way"):
        venv.make(THIS)
    assert (venv.path / "thesis.txt").exists()


class Pip(Venv):
    """A pip with scripted answers: None for success, else what it prints."""

    def __init__(self, path: Path, *answers: str | None) -> None:
        super().__init__(path)
        self.answers = list(answers)
        self.argv: list[list[str]] = []

    def attempt(self, argv: object, cwd: Path | None = None) -> str | None:
        self.argv.append(list(argv))  # type: ignore[call-overload]
        return self.answers.pop(0)


def test_torch_comes_from_where_pip_looks_first(tmp_path: Path) -> None:
    pip = Pip(tmp_path, None)
    plans.torch_cpu(pip)
    assert plans.TORCH_CPU in pip.argv[0]
    assert "--index-url" not in pip.argv[0]


def test_torch_comes_from_its_own_index_where_pip_does_not_find_it(tmp_path: Path) -> None:
    pip = Pip(tmp_path, "ERROR: No matching distribution found for torch==2.13.0+cpu", None)
    plans.torch_cpu(pip)
    assert pip.argv[1][-2:] == ["--index-url", plans.TORCH_INDEX]


def test_another_failure_of_pip_is_not_hidden(tmp_path: Path) -> None:
    pip = Pip(tmp_path, "OSError: [Errno 28] No space left on device")
    with pytest.raises(SetupFailedError, match="No space left"):
        plans.torch_cpu(pip)
    assert len(pip.argv) == 1


def test_the_cpu_engine_has_torch_apart_and_cuda_does_not(repo_root: Path, tmp_path: Path) -> None:
    names = {
        flavour: [step.name for step in plans.engine_steps(Venv(tmp_path), repo_root, flavour)]
        for flavour in ("cpu", "cuda")
    }
    assert names == {
        "cpu": ["torch", "engine", "without", "imports"],
        "cuda": ["engine", "imports"],
    }


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(facts: Facts, wanted: str) -> Verdict:
        return Verdict(None, "No engine can run here")

    def install(self: Folder, step: Step) -> None:
        pytest.fail(f"{step.name} was installed")

    monkeypatch.setattr(run, "judge", refuse)
    monkeypatch.setattr(Folder, "perform", install)


@pytest.mark.usefixtures("refused")
def test_a_refusal_comes_before_anything_is_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Setup(tmp_path).run(["server", "engine"]) == 2
    assert "No engine can run here" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("refused")
def test_an_optional_engine_is_only_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Setup(tmp_path, optional=True).run(["engine"]) == 0
    assert "No engine can run here" in capsys.readouterr().out


def test_an_unknown_engine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDHOUSE_ENGINE", "tpu")
    with pytest.raises(SetupFailedError, match="may be auto, cpu or cuda"):
        Setup(tmp_path).run(["engine"])


@pytest.mark.parametrize(("optional", "code"), [(True, 0), (False, 2)])
def test_a_machine_without_node(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    optional: bool,
    code: int,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert Setup(tmp_path, optional).run(["node"]) == code
    assert "node and npm not found" in capsys.readouterr().out


@pytest.mark.parametrize(("value", "ci"), [("true", True), ("1", True), ("", False), ("no", False)])
def test_in_ci_nothing_is_optional(monkeypatch: pytest.MonkeyPatch, value: str, ci: bool) -> None:
    monkeypatch.setenv("CI", value)
    assert run.in_ci() is ci
