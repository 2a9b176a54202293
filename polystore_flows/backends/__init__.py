"""One module or folder per backend; they share only ``codecs`` and ``folder_plate``."""
