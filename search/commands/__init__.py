"""The command line: each module holds commands that belong together; `main` puts them in one group."""
