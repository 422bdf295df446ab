"""Pure decisions: no I/O, no clock, no Ray; the gateway, the edge and the simulator call them."""
