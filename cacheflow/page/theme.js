// Light or dark, as the system says or as the reader has chosen. Not a module: it runs before anything is drawn. The choice
// is all that this page ever keeps in the browser's storage.
{
  const NAME = "cacheflow-theme";
  const CHOICES = ["light", "dark"];
  const kept = () => {
    try {
      return localStorage.getItem(NAME);
    } catch {
      return null; // A browser that keeps nothing for pages.
    }
  };
  const apply = (theme) => {
    if (CHOICES.includes(theme)) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
  };
  apply(kept());
  document.addEventListener("DOMContentLoaded", () => {
    const choice = document.getElementById("theme");
    choice.value = document.documentElement.dataset.theme ?? "system";
    choice.addEventListener("change", () => {
      apply(choice.value);
      try {
        if (CHOICES.includes(choice.value)) localStorage.setItem(NAME, choice.value);
        else localStorage.removeItem(NAME);
      } catch {
        // The choice lasts as long as the page.
      }
      document.dispatchEvent(new Event("theme"));
    });
  });
}
