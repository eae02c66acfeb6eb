"""The environment of a run."""

from __future__ import annotations

from twinrun.study.pins import CUBLAS, PINNED, REMOVED, clean_environment, leaks


def test_clean_environment_has_no_leaks_whatever_the_shell_holds() -> None:
    shell = {"OMP_NUM_THREADS": "8", "NVIDIA_TF32_OVERRIDE": "1", CUBLAS: ":0:0", "HOME": "/root"}
    for deterministic in (True, False):
        clean = clean_environment(deterministic, shell)
        assert leaks(clean, deterministic) == {}
        assert clean["HOME"] == "/root"
        assert clean.items() >= PINNED.items()
        assert not set(REMOVED) & set(clean)
    assert clean_environment(True, shell)[CUBLAS] == ":4096:8"
    assert CUBLAS not in clean_environment(False, shell)


def test_leaks_name_the_variable_and_its_value() -> None:
    clean = clean_environment(True, {})
    assert leaks(clean | {"MKL_CBWR": "AUTO"}, True) == {"MKL_CBWR": "AUTO"}
    assert leaks(clean, False) == {CUBLAS: ":4096:8"}
    del clean["ATEN_CPU_CAPABILITY"]
    assert leaks(clean, True) == {"ATEN_CPU_CAPABILITY": None}
