"""Models that techniques plug into: a decoder, an encoder, an encoder-decoder."""
