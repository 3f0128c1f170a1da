"""A store on disk under true faults: processes killed while writing, a full disk, another locale and clock."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from test_stores import KEY, NUM_EXAMPLES, Compute, disk_store, make_dataset

FOLDER = Path(__file__).parent


def run_python(script: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": f"{FOLDER.parents[1]}{os.pathsep}{FOLDER}",
        "CUDA_VISIBLE_DEVICES": "",
        **variables,
    }
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_process_killed_at_any_moment_of_writing_leaves_a_store_that_resumes(tmp_path):
    """Kills the writer (SIGKILL) before each of its system calls, or halfway through, and resumes."""
    script = """
        import io, os, signal, sys
        from pathlib import Path
        import test_stores
        from test_stores import Compute, KEY, NUM_EXAMPLES, disk_store, make_dataset

        class DyingFile:
            def __init__(self, file, is_last):
                self.file, self.is_last = file, is_last

            def __getattr__(self, name):
                return getattr(self.file, name)

            def __enter__(self):
                return self

            def __exit__(self, *error):
                self.file.close()

            def write(self, content):
                if self.is_last():
                    self.file.write(content[: len(content) // 2])
                    self.file.flush()
                    os.kill(os.getpid(), signal.SIGKILL)
                return self.file.write(content)

        def kill_before_call(number):
            calls = iter(range(number))
            def is_last():
                return next(calls, None) is None

            def wrap(function):
                def call(*arguments, **options):
                    if is_last():
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*arguments, **options)
                return call
            for name in ("fsync", "replace", "unlink"):
                setattr(os, name, wrap(getattr(os, name)))

            def open_dying(path, mode="r", *options):
                file = real_open(path, mode, *options)
                return DyingFile(file, is_last) if "w" in mode else file
            real_open, io.open = io.open, open_dying

        def open_killed(path, number):
            if os.fork() == 0:
                kill_before_call(number)
                disk_store(path).open(KEY, make_dataset(), Compute())
                os._exit(0)
            return os.wait()[1]

        def resume(path):
            if os.fork() == 0:
                compute = Compute()
                stored = disk_store(path).open(KEY, make_dataset(), compute)
                missing = compute.seen
                assert missing == list(range(NUM_EXAMPLES - len(missing), NUM_EXAMPLES)), missing
                assert (stored.array("features")[:, 0] == 6.0 * test_stores.np.arange(NUM_EXAMPLES)).all()
                assert not list(path.glob("store/.unfinished*"))
                print("computed", len(missing), flush=True)
                os._exit(0)
            assert os.wait()[1] == 0

        for number in range(0, 1000, int(sys.argv[2])):
            path = Path(sys.argv[1], str(number))
            path.mkdir()
            status = open_killed(path, number)
            resume(path)
            if status == 0:
                break
            assert os.WTERMSIG(status) == signal.SIGKILL
    """
    result = run_python(script, tmp_path, 11)
    computed = [int(line.split()[1]) for line in result.stdout.splitlines()]
    assert result.returncode == 0, result.stderr
    assert computed[0] == NUM_EXAMPLES and computed[-1] == 0 and len(set(computed)) == 6
    assert computed == sorted(computed, reverse=True)


def test_a_full_disk_is_reported_and_the_work_resumes_once_there_is_room(tmp_path):
    script = """
        import resource, sys
        from pathlib import Path
        import numpy as np
        from test_stores import KEY, make_dataset
        from deel_dualview import DiskStore, StoreError

        store = DiskStore(sys.argv[1], shard_size=10)
        calls = []
        def compute(element):
            calls.append(len(element[0]))
            if len(calls) == 4:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
            return {"features": np.ones((len(element[0]), 50))}
        try:
            store.open(KEY, make_dataset(), compute)
        except StoreError as error:
            print(error)
        partial = list(Path(sys.argv[1]).glob(".unfinished*"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        calls.clear()
        stored = store.open(KEY, make_dataset(), compute)
        print("partial", len(partial), "computed", sum(calls), stored.array("features").shape)
    """
    result = run_python(script, tmp_path / "store")
    assert result.returncode == 0, result.stderr
    assert "cannot be written: File too large" in result.stdout
    assert f"partial 0 computed {NUM_EXAMPLES - 10} ({NUM_EXAMPLES}, 50)" in result.stdout


def test_a_killed_process_leaves_no_lock(tmp_path):
    script = """
        import os, signal, sys
        from pathlib import Path
        from test_stores import Compute, KEY, disk_store, make_dataset
        def compute(element):
            os.kill(os.getpid(), signal.SIGKILL)
        disk_store(Path(sys.argv[1])).open(KEY, make_dataset(), compute)
    """
    assert run_python(script, tmp_path).returncode == -signal.SIGKILL
    assert len(disk_store(tmp_path).open(KEY, make_dataset(), Compute())) == NUM_EXAMPLES


@pytest.mark.skipif(os.name != "posix", reason="Windows has no locale of ASCII names")
def test_the_work_resumes_under_another_locale_and_clock_in_a_path_of_any_characters(tmp_path):
    """In a process that takes names for ASCII, on the other side of the date line, from files of 1970 and 2100."""
    place, compute = tmp_path / "a b" / "é 日本 İ", Compute()

    def interrupted(element):
        if len(compute.seen) >= 12:
            raise KeyboardInterrupt
        return compute(element)

    with pytest.raises(KeyboardInterrupt):
        disk_store(place).open(KEY, make_dataset(), interrupted)
    for number, path in enumerate(sorted(place.rglob("*"))):
        os.utime(path, (4102444800 * (number % 2),) * 2)
    script = """
        import sys
        from pathlib import Path
        from test_stores import Compute, KEY, disk_store, make_dataset
        compute = Compute()
        disk_store(Path(sys.argv[1])).open(KEY, make_dataset(), compute)
        print(sys.getfilesystemencoding(), min(compute.seen))
    """
    world = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "Pacific/Kiritimati"}
    result = run_python(script, place, **world)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["ascii", "10"]  # two shards of five were whole
    compute.seen.clear()
    stored = disk_store(place).open(KEY, make_dataset(), compute)
    assert not compute.seen
    np.testing.assert_array_equal(stored.array("features")[:, 0], 6.0 * np.arange(NUM_EXAMPLES))
