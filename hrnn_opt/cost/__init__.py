"""What a step costs, before it is made: bytes and seconds."""
