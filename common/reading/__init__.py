"""How each kind of file is read and written; `common.micrograph` is the door."""
