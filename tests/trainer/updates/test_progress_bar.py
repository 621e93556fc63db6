"""The bar of a training says something from its first second on."""

from support.training import train

from trainer.run_folder.log import RunLog


def test_the_bar_is_filled_at_the_start_and_has_estimates_after_ten_updates(digits_shards, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        RunLog, "progress", lambda self, images, total, stage, **facts: shown.append((images, total, stage, facts))
    )
    fields = {"stage1__max_epochs": 1, "stage1__check_images": 10**6, "stage2__max_epochs": 0}
    train(digits_shards, tmp_path, "run", log__every_images=10**6, **fields)
    assert shown[0] == (0, 1397, 1, {})
    images, _, _, facts = next(call for call in shown if call[3])
    assert images == 10 * 30
    assert set(facts) == {"ELBO", "sigma2"}
