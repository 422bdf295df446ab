"""The compiled half of the vendor's package: the library, the kernel driver and the chip."""
