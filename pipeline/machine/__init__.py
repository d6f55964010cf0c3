"""The machine that runs us: compiled kernels and threads, devices, the terminal, a command's errors."""
