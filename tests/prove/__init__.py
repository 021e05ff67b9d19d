"""The long proofs: what the real parts do, walked through exhaustively (`make prove`)."""
