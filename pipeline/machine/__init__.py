"""The machine that runs us: compiled kernels and threads, devices, the terminal, Ctrl+C, a command's errors."""
