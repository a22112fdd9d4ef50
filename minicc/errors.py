"""What can go wrong because of a file, a picture or an argument, said in one sentence."""


class Error(ValueError):
    """Base of every error that a user can cause: what was wrong, what was expected, what to do."""


class WeightsError(Error):
    """A checkpoint that is damaged, unsafe, of another family, or does not fit the model."""


class PictureError(Error):
    """A picture, mask or folder of pictures that cannot be used."""
