"""Write the counted and the measured parts of docs/ladder.md, and its picture."""

from .page import PAGE, PICTURE, write

write()
print(f"wrote {PAGE} and {PICTURE}")
