// Enlarged figures, wide tables, copying and links to files. Without this script the page is complete but static.
(() => {
  const every = (selector) => [...document.querySelectorAll(selector)];

  // -- figures: a click, Enter or Space enlarges; Escape or another click closes
  const dialog = document.createElement("dialog");
  dialog.className = "enlarged";
  dialog.innerHTML = '<button type="button">Close</button><div></div>';
  dialog.addEventListener("click", () => dialog.close());
  document.body.append(dialog);
  const enlarge = (img) => {
    const copy = new Image();
    copy.src = img.src;
    copy.alt = img.alt;
    const fits = Math.min(innerWidth, innerHeight * (img.naturalWidth / img.naturalHeight));
    copy.style.width = `${Math.max(fits, img.getAttribute("width") ?? 0)}px`;
    dialog.lastChild.replaceChildren(copy);
    dialog.setAttribute("aria-label", img.alt);
    dialog.showModal();
    dialog.scrollTo(0, 0);
  };
  for (const img of every("figure img")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "enlarge";
    button.setAttribute("aria-label", `Enlarge: ${img.alt}`);
    button.addEventListener("click", () => enlarge(img));
    const shown = img.closest("picture") ?? img;
    shown.replaceWith(button);
    button.append(shown);
  }

  // -- tables that are wider than the page
  const mark = () => {
    for (const box of every(".scroll")) {
      const wide = box.scrollWidth > box.clientWidth + 1;
      box.classList.toggle("wide", wide);
      for (const [name, value] of [["tabindex", "0"], ["role", "region"], ["aria-label", "Table, scrolls sideways"]]) {
        if (wide) box.setAttribute(name, value);
        else box.removeAttribute(name);
      }
      const hint = box.previousElementSibling?.matches(".hint") ? box.previousElementSibling : null;
      if (wide && !hint) box.insertAdjacentHTML("beforebegin", '<p class="hint" aria-hidden="true">More columns: scroll sideways →</p>');
      if (!wide) hint?.remove();
    }
  };
  mark();
  addEventListener("resize", mark);
  every("details").forEach((each) => each.addEventListener("toggle", mark));

  // -- copying; the clipboard may be refused to files, a selection is not
  for (const button of every("button[data-copy]")) {
    const title = button.textContent;
    const source = document.getElementById(button.dataset.copy);
    const select = () => {
      getSelection().selectAllChildren(source);
      if (!document.execCommand("copy")) throw new Error("not copied");
      getSelection().removeAllRanges();
    };
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(source.innerText).catch(select);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Select the text and copy it";
      }
      setTimeout(() => (button.textContent = title), 2500);
    });
  }

  // -- names of files become links where the page lies in the folder of its run
  const names = every("[data-file]");
  const picture = names.find((each) => each.dataset.file.endsWith(".png"));
  const address = (file) => file.split("/").map(encodeURIComponent).join("/");
  if (picture && location.pathname.endsWith(".html")) { // not in a frame of a notebook
    const probe = new Image();
    probe.onload = () => {
      for (const name of names) {
        const link = document.createElement("a");
        link.href = address(name.dataset.file);
        link.textContent = name.textContent;
        name.replaceChildren(link);
      }
    };
    probe.src = address(picture.dataset.file);
  }
})();
