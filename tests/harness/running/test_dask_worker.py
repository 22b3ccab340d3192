"""What a Dask worker says of itself."""

from balbench.harness.running.dask_worker import versions


def test_versions_name_the_code_and_the_libraries():
    assert versions().keys() == {"Python", "torch", "numpy", "balbench"}
    assert len(versions()["balbench"]) == 64
