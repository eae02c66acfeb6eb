"""How the columns of the table of where runs part read: heading, number format, meaning; plain text, no imports."""

PARTING_COLUMNS: dict[str, tuple[str, str, str]] = {
    "pair": ("Runs", "", "the two runs"),
    "found": ("Found", "", "the first difference of all, or the first that is more than another order of the examples"),
    "parted_in": ("In", "", "epoch and step, counted from 1"),
    "phase": ("Phase", "", "initialization, batch, augmentation, forward, backward or optimizer"),
    "operation": ("Operation", "", "PyTorch's name; (draw) or (state): before any operation"),
    "module": ("Module", "", "path and type in the model; (loss): outside of it"),
    "tensor": ("Tensor", "", "a parameter, gradient or state by name, else the operation's own word"),
    "differing": ("Elements", "", "how many differ"),
    "difference_kind": ("Kind", "", "rounding and other values, another order, or another sign"),
    "ulps_max": ("Ulps max", "d", "largest distance in units in the last place"),
    "ulps_median": ("Ulps median", ".1f", "median distance over the elements that differ"),
}
