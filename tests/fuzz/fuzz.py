"""atheris on the targets: `python -m tests.fuzz.fuzz --runs 100000 --corpus DIRECTORY [TARGET]`.

Each target runs in a process of its own, because libFuzzer ends the one that it runs in.
"""

import argparse
import subprocess
import sys
from pathlib import Path

SEEDS = Path(__file__).with_name("corpus")
_LONGEST = "2048"


def fuzz(name: str, libfuzzer: list[str]) -> None:
    """Never returns."""
    import atheris

    with atheris.instrument_imports(include=["iotflow", "jwt", "json"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *libfuzzer], TARGETS[name])
    atheris.Fuzz()


def run_all(names: list[str], runs: int, seconds: int, corpus: Path) -> int:
    """One after the other; the status says whether all held."""
    failed: list[str] = []
    for name in names:
        kept, crashes = corpus / name, corpus / "crashes" / name
        kept.mkdir(parents=True, exist_ok=True)
        crashes.mkdir(parents=True, exist_ok=True)
        print(f"== {name}", flush=True)
        done = subprocess.run(
            [
                sys.executable, "-m", "tests.fuzz.fuzz", "--one", name,
                f"-runs={runs}", f"-max_total_time={seconds}", f"-max_len={_LONGEST}",
                "-timeout=10", "-print_final_stats=1", f"-artifact_prefix={crashes}/",
                str(kept), str(SEEDS / name),
            ],
            check=False,
        )  # fmt: skip
        if done.returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "all held", flush=True)
    return 1 if failed else 0


def main() -> int:
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], sys.argv[3:])
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("target", nargs="*")
    arguments.add_argument("--runs", type=int, default=100_000)
    arguments.add_argument("--seconds", type=int, default=600)
    arguments.add_argument("--corpus", type=Path, required=True)
    chosen = arguments.parse_args()
    names = chosen.target or sorted(path.name for path in SEEDS.iterdir())
    return run_all(names, chosen.runs, chosen.seconds, chosen.corpus)


if __name__ == "__main__":
    sys.exit(main())
