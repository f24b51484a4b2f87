"""The demo page in a real browser: it lists what Python lists, by mouse, by keyboard and on a narrow screen."""

from pathlib import Path

import pytest
import torch
from helpers import SMALL, main_here, recommend_here, train_here
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from Models.checkpoint import SavedModel, load_model
from resultAnalyze import demo
from resultAnalyze.demo import ItemWeights, all_weights, page_content, write_page


@pytest.fixture(scope="module")
def ease_run(places, tmp_path_factory) -> Path:
    """A run of EASE alone, whose scores come from its item-item weights only."""
    flags = ("--preset", "autoencoder", "--network-weight", 0, "--epochs", 1, *SMALL["autoencoder"])
    flags += ("--ratios", 0.9, 0, 0.1)  # gives each rated movie at least five training ratings
    return train_here(*places, "--run", tmp_path_factory.mktemp("ease") / "run", *flags)


@pytest.fixture(scope="module")
def saved(ease_run) -> SavedModel:
    return load_model(ease_run / "best.pt", torch.device("cpu"))


@pytest.fixture(scope="module")
def page(ease_run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "demo.html"
    main_here(demo, "--run", ease_run, "--output", path)
    return path


def search(browser, words: str) -> None:
    box = browser.find_element(By.ID, "search")
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(Keys.DELETE, words)


def tick(browser, movie_id: object) -> None:
    search(browser, "")
    browser.find_element(By.CSS_SELECTOR, f"#found input[value='{movie_id}']").click()


def listed(browser) -> list[str]:
    return [one.text for one in browser.find_elements(By.CSS_SELECTOR, "#list > li > .title")]


def liked(browser) -> list[str]:
    return [one.text.removesuffix(" \u2715") for one in browser.find_elements(By.CSS_SELECTOR, "#liked button")]


def test_the_list_is_pythons_and_the_models(opened, browser, page, saved, ease_run):
    """The list equals `ItemWeights.recommended` and the model's list for a new user among the page's movies."""
    opened(page)
    on_page = [int(one) for one in page_content(saved, 10_000, 100)["ids"]]
    kept = torch.tensor([saved.ids.movie_ids.index(movie) for movie in on_page])
    weights = ItemWeights.of(all_weights(saved, kept), 100)
    for chosen in ([2], [2, 9], [2, 9, 163]):
        tick(browser, chosen[-1])
        best = weights.recommended([on_page.index(movie) for movie in chosen], 10)
        expected = [saved.ids.titles[kept[k]] for k in best]
        assert listed(browser) == expected and len(expected) > 2
        flags = ("--liked", ",".join(map(str, chosen)), "--format", "ids", "--top-n", len(expected))
        flags += ("--candidates", ",".join(map(str, on_page)))
        ids = recommend_here("--run", ease_run, *flags).split()
        assert [saved.ids.titles[saved.ids.movie_ids.index(int(one))] for one in ids] == expected


def test_movies_are_found_without_accents_and_case_and_in_any_order_of_words(opened, browser, page):
    opened(page)
    for words in ("miserables", "LES MISÉR", "les mis 1995"):
        search(browser, words)
        found = [one.text for one in browser.find_elements(By.CSS_SELECTOR, "#found label")]
        assert len(found) == 1 and found[0].startswith("Misérables, Les (1995)")
    search(browser, "nothing has this title")
    assert not browser.find_elements(By.CSS_SELECTOR, "#found label")
    assert "No title has these words" in browser.find_element(By.ID, "count").text


def test_reasons_are_liked_movies_the_strongest_first(opened, browser, page, saved):
    opened(page)
    tick(browser, 2), tick(browser, 9)
    weights = ItemWeights.of(all_weights(saved, torch.arange(27)), 100)
    for title, why in zip(listed(browser), browser.find_elements(By.CSS_SELECTOR, ".why"), strict=True):
        movie = saved.ids.titles.index(title)
        shares = {}
        for one in (2, 9):
            j = saved.ids.movie_ids.index(one)
            shares[saved.ids.titles[j]] = dict(zip(weights.near[j].tolist(), weights.weights[j].tolist(), strict=True))[
                movie
            ]
        ordered = [name for name, value in sorted(shares.items(), key=lambda pair: -pair[1]) if value > 0]
        assert why.text == "because you like " + "; ".join(ordered)


def test_what_is_liked_can_be_taken_back_and_the_page_says_what_to_do(opened, browser, page):
    opened(page)
    assert "Tick a movie or two" in browser.find_element(By.ID, "hint").text and listed(browser) == []
    tick(browser, 2)
    (first,) = liked(browser)
    before = listed(browser)
    browser.find_element(By.CSS_SELECTOR, "#list [aria-label^='I like']").click()
    assert liked(browser) == [first, before[0]] and before[0] not in listed(browser)
    browser.find_elements(By.CSS_SELECTOR, "#liked button")[1].click()
    assert listed(browser) == before
    browser.find_element(By.CSS_SELECTOR, "#liked button").click()
    assert listed(browser) == [] and "Tick a movie or two" in browser.find_element(By.ID, "hint").text


def test_more_like_a_movie_is_shown_below_it(opened, browser, page, saved):
    opened(page)
    tick(browser, 2)
    button = browser.find_element(By.CSS_SELECTOR, "#list [aria-expanded]")
    movie = saved.ids.titles.index(listed(browser)[0])
    button.click()
    weights = ItemWeights.of(all_weights(saved, torch.arange(27)), 100)
    expected = [saved.ids.titles[i] for i in weights.recommended([movie], 6)]
    assert [one.text for one in browser.find_elements(By.CSS_SELECTOR, ".alike li")] == expected
    focused = browser.switch_to.active_element
    assert focused.get_attribute("aria-expanded") == "true"
    focused.send_keys(Keys.SPACE)
    assert not browser.find_elements(By.CSS_SELECTOR, ".alike")


def test_the_keyboard_is_enough(opened, browser, page):
    """Search, Tab to the first checkbox, Space, then Tab to the list's buttons; Space leaves the focus where it was."""
    opened(page)
    browser.find_element(By.ID, "search").send_keys("miserables", Keys.TAB)
    if browser.switch_to.active_element.tag_name != "input":  # some browsers first focus the scrolling list
        browser.switch_to.active_element.send_keys(Keys.TAB)
    browser.switch_to.active_element.send_keys(Keys.SPACE)
    assert liked(browser) == ["Misérables, Les (1995)"] and listed(browser)
    assert browser.switch_to.active_element.get_attribute("type") == "checkbox"
    labels = []
    for _ in range(3):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        labels.append(browser.switch_to.active_element.get_attribute("aria-label"))
    assert labels[0] == "Remove Misérables, Les (1995)" and labels[1].startswith("More like ")


@pytest.mark.parametrize("width", [320, 390, 800])
def test_nothing_is_wider_than_a_narrow_screen(opened, browser, saved, tmp_path, width):
    """Titles may be of any length, even one long word."""
    content = page_content(saved, 100, 100)
    content["titles"][:2] = ["A" * 300, "A long title " * 30]
    write_page(content, tmp_path / "demo.html")
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        opened(tmp_path / "demo.html")
        for movie in (2, 9):
            tick(browser, movie)
        assert browser.execute_script("return document.scrollingElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_titles_are_text_whatever_they_hold(opened, browser, saved, tmp_path):
    content = page_content(saved, 100, 100)
    content["titles"][0] = '</script><b>Bold</b> & "quoted" \u2028 (1999)'
    write_page(content, tmp_path / "demo.html")
    opened(tmp_path / "demo.html")
    search(browser, "bold")
    assert '</script><b>Bold</b> & "quoted"' in browser.find_element(By.CSS_SELECTOR, "#found label").text
    assert not browser.find_elements(By.TAG_NAME, "b")


def test_a_page_of_another_preset_has_weights_made_from_its_training_ratings(
    opened, browser, tiny_run, saved, tmp_path
):
    """With a limit on the number of movies, the page holds only the most rated ones."""
    main_here(demo, "--run", tiny_run, "--movies", 12, "--output", tmp_path / "demo.html")
    opened(tmp_path / "demo.html")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#found label")) == 12
    browser.find_element(By.CSS_SELECTOR, "#found input").click()
    assert listed(browser)


def test_movies_that_few_people_rated_are_not_in_the_page(saved):
    """Their weights would reveal what else these people rated."""
    counts = torch.bincount(saved.ratings.training().movie, minlength=len(saved.ids.movie_ids))
    enough = [str(saved.ids.movie_ids[k]) for k in (counts >= 5).nonzero().squeeze(1).tolist()]
    assert page_content(saved, 10_000, 100)["ids"] == enough and len(enough) < len(counts)
