"""Kernels as LLVM IR text, one file a family, on the builder, driver and copies that they share.

Nothing here compiles or runs: ``emit`` returns text, ``jit`` compiles it.
"""
