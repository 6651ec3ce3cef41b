"""Settings of any tree of structs: read from a file, the environment and flags, checked, shown, described.

Nothing here knows a setting. A tree is a `msgspec.Struct` whose fields are sections (structs), tables of them
(`dict[str, …]`) and values, each with `Annotated[type, Meta(description=…, …)]`. A value of a class of our own is
made of text by its constructor, whose `ValueError` says what is wrong with the text.

What a field of type `Secret` called `key` holds comes from the environment, or from the file that `key_file` names.
"""
