"""The demo's trainer saves as TensorFlow does and resumes from what it saved."""

import numpy as np
import pytest

from ckptd.cli import demo_trainer


def a_network():
    return demo_trainer.initial(np.random.default_rng(7))


def test_it_resumes_from_the_newest_save_and_trains_on(tmp_path):
    tensors = a_network()
    demo_trainer.save(tmp_path, 10, tensors)
    tensors["layer0/b"] += 1
    demo_trainer.save(tmp_path, 20, tensors)

    restored = demo_trainer.restore(tmp_path)

    assert restored is not None
    step, found = restored
    assert step == 20
    assert found.keys() == tensors.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, tensors[name])
    demo_trainer.train_step(found, *demo_trainer.spirals(np.random.default_rng(1), 8), step + 1)
    again = demo_trainer.restore(tmp_path)
    assert again is not None
    np.testing.assert_array_equal(again[1]["layer0/b"], tensors["layer0/b"])


def test_a_save_that_is_killed_in_the_middle_leaves_the_one_before(tmp_path, monkeypatch):
    demo_trainer.save(tmp_path, 10, a_network())

    def killed(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", killed)
    with pytest.raises(KeyboardInterrupt):
        demo_trainer.save(tmp_path, 20, a_network())

    left = [name for name in tmp_path.iterdir() if "spirals-20" in name.name]
    assert [".tempstate" in name.name for name in left] == [True]
    restored = demo_trainer.restore(tmp_path)
    assert restored is not None
    assert restored[0] == 10


def test_there_is_nothing_to_resume_from_in_a_new_directory(tmp_path):
    assert demo_trainer.restore(tmp_path) is None
