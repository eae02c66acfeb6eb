"""The environment of a run."""

from __future__ import annotations

from twinrun.study.pins import PINNED, REMOVED, clean_environment, leaks


def test_clean_environment_has_no_leaks_whatever_the_shell_holds() -> None:
    shell = {"OMP_NUM_THREADS": "8", "NVIDIA_TF32_OVERRIDE": "1", "CUBLAS_WORKSPACE_CONFIG": ":0:0", "HOME": "/root"}
    clean = clean_environment(shell)
    assert leaks(clean) == {}
    assert clean["HOME"] == "/root"
    assert clean.items() >= PINNED.items()
    assert not set(REMOVED) & set(clean)


def test_leaks_name_the_variable_and_its_value() -> None:
    clean = clean_environment({})
    assert leaks(clean | {"MKL_CBWR": "AUTO", "GLIBC_TUNABLES": "x"}) == {"MKL_CBWR": "AUTO", "GLIBC_TUNABLES": "x"}
    del clean["ATEN_CPU_CAPABILITY"]
    assert leaks(clean) == {"ATEN_CPU_CAPABILITY": None}


def test_this_cpus_own_instructions_are_free_and_nothing_else_is() -> None:
    shell = {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_CBWR": "COMPATIBLE",
        "OMP_NUM_THREADS": "8",
    }
    own = clean_environment(shell, "this_cpu")
    assert leaks(own, "this_cpu") == {}
    assert leaks(own) == {"ATEN_CPU_CAPABILITY": None, "ONEDNN_MAX_CPU_ISA": None, "MKL_CBWR": "AUTO"}
    assert leaks(clean_environment(own), "this_cpu") == {name: PINNED[name] for name in leaks(own)}
