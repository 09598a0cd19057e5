"""Effects, the language of the protocol: requests of steps to performers, their answers, and the loop between."""
