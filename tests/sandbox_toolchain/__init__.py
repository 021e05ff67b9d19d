"""Tests of the toolchain and of the sandbox's processes."""
