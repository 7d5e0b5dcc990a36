"""Front ends by dialect, a file each: from canonical text to what ChatTTS can read."""
