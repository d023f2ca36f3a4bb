"""Pages that explain: one HTML file each, which needs no server and no address outside it."""
