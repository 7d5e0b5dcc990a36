"""espeak-ng: small, fast speech without weights; Mandarin, Cantonese and English."""
