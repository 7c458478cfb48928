"""Tables of hostile inputs, with the function that makes each kind of attack."""


class AttackTable:
    """Rows (kind, name, what is done, ...), and for each kind the function that does it.

    Attributes
    ----------
    rows : list of tuple
    functions : dict of str to callable
    """

    def __init__(self):
        self.rows, self.functions = [], {}

    def attack(self, kind, *rows):
        """Enter rows of one kind into the table; used as a decorator of the function that makes the attack."""

        def enter(function):
            self.functions[kind] = function
            self.rows.extend((kind, *row) for row in rows)
            return function

        return enter
