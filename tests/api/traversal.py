"""Hundreds of spellings of paths that lead out of a directory, to files called canary.png."""

from itertools import product

_UP = (
    "..",
    ".",
    "...",
    "....",
    ".. ",
    " ..",
    "..;",
    "..\0",
    ".\0.",
    "..%00",
    "..\t",
    "%2e%2e",
    "%252e%252e",
    "%25252e%25252e",
    ".%2e",
    "%2E.",
    "%u002e%u002e",
    "%c0%ae%c0%ae",
    "%e0%80%ae%e0%80%ae",
    "\uff0e\uff0e",
    "\u2024\u2024",
    "\u2025",
    "\u3002\u3002",
    "..\u200b",
    "..\\..",
)
_SLASHES = (
    "/",
    "\\",
    "//",
    "/./",
    "%2f",
    "%5c",
    "%252f",
    "%c0%af",
    "%e0%80%af",
    "\u2215",
    "\uff0f",
    "\u2044",
)
_DEPTHS = (1, 2, 5)

_RELATIVE = [
    slash.join([up] * depth + ["canary.png"]) for up, slash, depth in product(_UP, _SLASHES[:4], _DEPTHS)
] + [slash.join([up] * 3 + ["canary.png"]) for up, slash in product(_UP[:12], _SLASHES[4:])]

_INSIDE = [
    "images/../../canary.png",
    "images/ab/../../../canary.png",
    "a.png/../canary.png",
    "x/..%2f..%2fcanary.png",
    "....//....//canary.png",
    "..././..././canary.png",
    "./.././../canary.png",
    "tmp/../../canary.png",
    "../objects/../../canary.png",
    "../metadata/canary.png",
    "../tmp/canary.png",
    "../index.db",
    "../cache/index.db",
    "images/..\\..\\canary.png",
    "canary.png/..",
    "canary.png/../../canary.png",
]

_ABSOLUTE = [
    "{root}/canary.png",
    "/{root}/canary.png",
    "//{root}/canary.png",
    "file://{root}/canary.png",
    "file:{root}/canary.png",
    "\\\\localhost\\share\\canary.png",
    "\\\\?\\C:\\canary.png",
    "C:\\canary.png",
    "C:canary.png",
    "C:/canary.png",
    "/etc/passwd",
    "//etc/passwd",
    "/proc/self/environ",
    "/proc/self/cwd/canary.png",
    "/dev/stdin",
    "~/canary.png",
    "~root/canary.png",
    "$HOME/canary.png",
    "%HOME%/canary.png",
    "|cat canary.png",
    "`cat canary.png`",
    "canary.png\0.png",
    "canary.png%00.png",
    "canary.png\n.png",
    "canary.png ",
    "canary.png.",
    "canary.png/",
    "canary.png::$DATA",
    "CON",
    "nul.png",
    "../" * 340 + "canary.png",
    "a/" * 500 + "../" * 520 + "canary.png",
]


def spellings(root: str) -> list[str]:
    """Return all spellings; `root` is the directory above all that the server uses."""
    return list(dict.fromkeys([*_RELATIVE, *_INSIDE, *(text.format(root=root) for text in _ABSOLUTE)]))
