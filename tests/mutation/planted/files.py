"""Bugs in the files that agents work with."""

from typing import Final

from tests.support.planting import MODULE, PlantedBug

FILES: Final = (
    PlantedBug(
        "links to folders are followed",
        "files/_walk.py",
        MODULE,
        "_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC",
        "_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC",
        ("unit/files/test_directory.py::test_folder_when_it_is_a_link",),
    ),
    PlantedBug(
        "links to files are followed",
        "files/_walk.py",
        MODULE,
        "_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK",
        "_FILE: Final = os.O_RDONLY | os.O_NONBLOCK",
        (
            "unit/files/test_directory.py::test_place_when_no_plain_file_is_there",
            "unit/files/test_directory.py::test_operation_when_a_link_is_planted_meanwhile",
        ),  # test ids
    ),
    PlantedBug(
        "a path may lead up",
        "files/_paths.py",
        "_fault",
        '    if name.strip(".") == "":\n',
        "    if False:\n",
        ("unit/files/test_paths.py::test_path_when_it_leads_astray",),
    ),
    PlantedBug(
        "a path that only looks like another is taken",
        "files/_paths.py",
        "_unicode_fault",
        '    if "/" in plain or "\\\\" in plain or',
        "    if",
        ("unit/files/test_paths.py::test_path_when_it_leads_astray",),
    ),
    PlantedBug(
        "scopes share a directory: their keys are joined as they are",
        "files/directory.py",
        "_escaped",
        'return chr(byte) if chr(byte) in _PLAIN else f"%{byte:02x}"',
        'return chr(byte) if chr(byte) in _PLAIN or chr(byte) == "+" else f"%{byte:02x}"',
        ("unit/files/test_directory.py::test_scopes_when_their_names_are_odd",),
    ),
    PlantedBug(
        "any scope writes where only one may",
        "files/directory.py",
        "DirectoryFiles._check_writer",
        "        elif self._writer != scope:\n",
        "        elif False:\n",
        ("unit/files/test_directory.py::test_single_scope_when_two_write",),
    ),
    PlantedBug(
        "a file may be read whatever its size",
        "files/_walk.py",
        "read",
        "        if read > max_bytes:\n",
        "        if False:\n",
        (
            "contracts/files/test_backends.py::test_backend_when_a_file_is_large",
            "unit/files/test_directory.py::test_read_when_the_file_grows",
        ),
    ),
    PlantedBug(
        "what is edited during a save counts as saved",
        "files/_entry.py",
        "Saving.stored",
        "        self.saved = revision\n",
        "        self.saved = self.revision\n",
        ("unit/files/test_saving.py::test_edit_when_a_save_is_at_work",),
    ),
    PlantedBug(
        "a save that failed is not tried again",
        "files/_saving.py",
        "_failed",
        "    volume.publish(FileSaveFailed(entry.path, saving.failures, wait))\n    schedule(volume, entry)\n",
        "    volume.publish(FileSaveFailed(entry.path, saving.failures, wait))\n",
        ("unit/files/test_saving.py::test_save_when_it_fails",),
    ),
    PlantedBug(
        "the saves of the closing are not shielded",
        "files/_system.py",
        "FileSystem.close",
        "services.config.settle_timeout, shield=True)",
        "services.config.settle_timeout)",
        ("unit/files/test_saving.py::test_close_when_cancelled",),
    ),
    PlantedBug(
        "the shield of the closing has no deadline",
        "files/_system.py",
        "FileSystem.close",
        "trio.move_on_after(services.config.settle_timeout, shield=True)",
        "trio.CancelScope(shield=True)",
        ("unit/files/test_saving.py::test_close_when_nothing_helps",),
    ),
    PlantedBug(
        "what could not be saved is not named",
        "files/_system.py",
        "FileSystem.unsaved",
        "        return FilesUnsaved(left) if left else None\n",
        "        return None\n",
        ("unit/files/test_saving.py::test_close_when_nothing_helps",),
    ),
    PlantedBug(
        "what is pending stays behind when its file is deleted",
        "files/_volume.py",
        "Volume.drop",
        "        self.unsaved.pop(entry, None)\n        self.services.cache.forget(entry)\n        self.publish(FileDeleted(",
        "        self.services.cache.forget(entry)\n        self.publish(FileDeleted(",
        ("unit/files/test_saving.py::test_delete_when_an_edit_is_unsaved",),
    ),
    PlantedBug(
        "a create replaces what is there",
        "files/memory.py",
        "MemoryFiles.create",
        "        _check_free(files, path)\n        files[path] = content\n",
        "        files[path] = content\n",
        ("contracts/files/test_backends.py::test_backend_when_the_place_is_taken",),
    ),
    PlantedBug(
        "a new name of a file is not flushed",
        "files/_walk.py",
        "_write",
        "    os.fsync(folder)\n",
        "",
        ("unit/files/test_directory.py::test_write_when_the_power_fails",),
    ),
)
