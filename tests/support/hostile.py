"""File names that break what was written carelessly."""

NAMES = (
    b"two words",
    b'it\'s "quoted"',
    b"$(touch pwned)",
    b"new\nline",
    b"-leading",
    b"#comment",
    b";comment",
    b"*[a]?",
    b"!bang",
    b"back\\slash",
    b"\xff\xfe",
    b" ",
)
