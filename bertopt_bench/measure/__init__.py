"""Clocks and meters: they see a device through a Protocol and know nothing of BERT."""
