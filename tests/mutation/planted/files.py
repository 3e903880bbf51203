"""Bugs in the files that agents work with."""

from typing import Final

from tests.mutation.planted._planting import Mutant

FILES: Final = (
    Mutant(
        "links to folders are followed",
        "files/_walk.py",
        "_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC",
        "_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC",
        ("unit/files/test_directory.py::test_folder_when_it_is_a_link",),
    ),
    Mutant(
        "links to files are followed",
        "files/_walk.py",
        "_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK",
        "_FILE: Final = os.O_RDONLY | os.O_NONBLOCK",
        (
            "unit/files/test_directory.py::test_place_when_no_plain_file_is_there",
            "unit/files/test_directory.py::test_operation_when_a_link_is_planted_meanwhile",
        ),  # test ids
    ),
    Mutant(
        "a path may lead up",
        "files/_paths.py",
        '    if name.strip(".") == "":\n',
        "    if False:\n",
        ("unit/files/test_paths.py::test_path_when_it_leads_astray",),
    ),
    Mutant(
        "a path that only looks like another is taken",
        "files/_paths.py",
        '    if "/" in plain or "\\\\" in plain or',
        "    if",
        ("unit/files/test_paths.py::test_path_when_it_leads_astray",),
    ),
    Mutant(
        "scopes share a directory: their keys are joined as they are",
        "files/directory.py",
        'return chr(byte) if chr(byte) in _PLAIN else f"%{byte:02x}"',
        'return chr(byte) if chr(byte) in _PLAIN or chr(byte) == "+" else f"%{byte:02x}"',
        ("unit/files/test_directory.py::test_scopes_when_their_names_are_odd",),
    ),
    Mutant(
        "any scope writes where only one may",
        "files/directory.py",
        "        elif self._writer != scope:\n",
        "        elif False:\n",
        ("unit/files/test_directory.py::test_single_scope_when_two_write",),
    ),
    Mutant(
        "a file may be read whatever its size",
        "files/_walk.py",
        "        if read > max_bytes:\n",
        "        if False:\n",
        (
            "contracts/files/test_backends.py::test_backend_when_a_file_is_large",
            "unit/files/test_directory.py::test_read_when_the_file_grows",
        ),
    ),
    Mutant(
        "what is edited during a save counts as saved",
        "files/_saving.py",
        "    entry.saved = revision\n",
        "    entry.saved = entry.revision\n",
        ("unit/files/test_saving.py::test_edit_when_a_save_is_at_work",),
    ),
    Mutant(
        "a save that failed is not tried again",
        "files/_saving.py",
        "    volume.publish(FileSaveFailed(entry.path, entry.failures, wait))\n    schedule(volume, entry)\n",
        "    volume.publish(FileSaveFailed(entry.path, entry.failures, wait))\n",
        ("unit/files/test_saving.py::test_save_when_it_fails",),
    ),
    Mutant(
        "the saves of the closing are not shielded",
        "files/_system.py",
        "services.config.settle_timeout, shield=True)",
        "services.config.settle_timeout)",
        ("unit/files/test_saving.py::test_close_when_cancelled",),
    ),
    Mutant(
        "the shield of the closing has no deadline",
        "files/_system.py",
        "trio.move_on_after(services.config.settle_timeout, shield=True)",
        "trio.CancelScope(shield=True)",
        ("unit/files/test_saving.py::test_close_when_nothing_helps",),
    ),
    Mutant(
        "what could not be saved is not named",
        "files/_system.py",
        "        return FilesUnsaved(left) if left else None\n",
        "        return None\n",
        ("unit/files/test_saving.py::test_close_when_nothing_helps",),
    ),
    Mutant(
        "what is pending stays behind when its file is deleted",
        "files/_volume.py",
        "        self.unsaved.pop(entry, None)\n        self.services.cache.forget(entry)\n        self.publish(FileDeleted(",
        "        self.services.cache.forget(entry)\n        self.publish(FileDeleted(",
        ("unit/files/test_saving.py::test_delete_when_an_edit_is_unsaved",),
    ),
    Mutant(
        "a create replaces what is there",
        "files/memory.py",
        "        _check_free(files, path)\n        files[path] = content\n",
        "        files[path] = content\n",
        ("contracts/files/test_backends.py::test_backend_when_the_place_is_taken",),
    ),
    Mutant(
        "a new name of a file is not flushed",
        "files/_walk.py",
        "            os.rename(temporary, names[-1], src_dir_fd=folder, dst_dir_fd=folder)\n        os.fsync(folder)\n",
        "            os.rename(temporary, names[-1], src_dir_fd=folder, dst_dir_fd=folder)\n",
        ("scenarios/test_holes.py::test_write_when_the_power_fails",),
    ),
)
