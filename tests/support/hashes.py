"""Random bits of a position, from the published splitmix64, one word at a time."""

MASK = 2**64 - 1
GAMMA = 0x9E3779B97F4A7C15


def splitmix64(word: int) -> int:
    """The output of Vigna's splitmix64.c for the state `word`."""
    z = (word + GAMMA) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def hash_of(position: int, seed: int) -> int:
    """The hash of (seed, position), from which all random bits come."""
    return splitmix64((splitmix64(seed) + position) & MASK)


def words_of(position: int, seed: int, count: int) -> list[int]:
    """The first words of the sequence that starts at the hash."""
    bits = hash_of(position, seed)
    return [splitmix64((bits + i * GAMMA) & MASK) for i in range(count)]
