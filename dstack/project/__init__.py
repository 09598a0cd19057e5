"""What the user wrote, read and checked, and the plan made of it. Reads files; runs nothing, asks no network."""
