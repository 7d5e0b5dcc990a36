"""ChatTTS: natural dialogue speech. Code AGPL-3.0-or-later, weights CC BY-NC 4.0; installed only when asked for."""
