"""`python -m dlbook`: the command `dlbook` where its folder is not on the path."""
from dlbook.kit.start import main

if __name__ == "__main__":
    main()
