"""What a run keeps in its workdir, and whether it may be used."""
