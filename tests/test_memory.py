"""Freed memory stays with the process: no page faults when it is used again."""

import subprocess
import sys

import pytest

from rdgap._memory import keep_freed_memory

FAULTS = """
import resource, sys, torch
from rdgap._memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def step():
    return torch.zeros(2**24)  # 64 MiB, more than glibc ever keeps of itself
for _ in range(20):  # aligned blocks find their place after some
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults_when(mode: str) -> int:
    run = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
    return int(run.stdout)


def test_memory_that_is_used_again_is_not_given_back_in_between():
    if not keep_freed_memory():
        pytest.skip("this C library has no such setting")
    assert faults_when("kept") < 0.2 * faults_when("given back")


def test_a_c_library_without_the_setting_is_left_alone(monkeypatch):
    monkeypatch.setattr("rdgap._memory.ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False
