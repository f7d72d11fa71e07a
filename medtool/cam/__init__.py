"""Where a network looks: class-activation maps, raw and at the resolution of their layer."""
