"""The least that any merge must do: read the given files, write as many bytes as the first one has, wait for the disk.

python bench/assemble_floor.py OUTPUT BASE [EXPERT…]
"""

import os
import sys

_BYTES = 1 << 20


def main() -> None:
    """Copy the first file to OUTPUT and read the others, in reused memory."""
    output, *inputs = sys.argv[1:]
    memory = memoryview(bytearray(_BYTES))
    target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for place, path in enumerate(inputs):
        source = os.open(path, os.O_RDONLY)
        while count := os.readv(source, [memory]):
            if place == 0:
                os.write(target, memory[:count])
        os.close(source)
    os.fsync(target)
    os.close(target)


if __name__ == "__main__":
    main()
