// Everything works without this module. It adds copying, relative times, dialogs and live filters.
// Unit, seconds, how many make the next.
const units = [["second", 1, 60], ["minute", 60, 60], ["hour", 3600, 24], ["day", 86400, 730], ["year", 31536e3, 1e9]];
const words = new Intl.RelativeTimeFormat("en");

const tell = (root) => {
  for (const time of root.querySelectorAll("time[data-ago]")) {
    const exact = time.title || time.textContent;
    const seconds = (new Date(time.dateTime) - Date.now()) / 1000;
    const [unit, size] = units.find(([, size, end]) => Math.abs(seconds / size) < end - 0.5);
    const count = Math.round(seconds / size);
    const ago = count ? words.format(count, unit) : "just now";
    time.title = exact;
    time.textContent = time.dataset.ago ? `${exact} (${ago})` : ago;
  }
  for (const button of root.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;
};

// An XMLHttpRequest parses a page without a Trusted Types sink.
const load = (url, body) => new Promise((resolve, reject) => {
  const request = new XMLHttpRequest();
  request.open(body ? "POST" : "GET", url);
  request.responseType = "document";
  request.onload = () => (request.status < 400 && request.response ? resolve(request.response) : reject(request.status));
  request.onerror = reject;
  request.send(body);
});

const put = (page, selector) => {
  const fresh = page.querySelector(selector);
  tell(fresh);
  document.querySelector(selector).replaceWith(document.adoptNode(fresh));
};

const dialog = async (link) => {
  const page = await load(link.href);
  const form = page.querySelector("main form");
  if (!form) return location.assign(link.href);
  const box = document.createElement("dialog");
  const title = document.createElement("h2");
  title.id = "dialog-title";
  title.textContent = page.querySelector("h1").textContent;
  box.setAttribute("aria-labelledby", title.id);
  box.append(title, document.adoptNode(form));
  box.addEventListener("click", (event) => {
    if (event.target === box || event.target.closest("[data-close]")) { event.preventDefault(); box.close(); }
  });
  box.addEventListener("close", () => { box.remove(); link.focus(); });
  document.body.append(box);
  box.showModal();
};

document.addEventListener("click", async (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  const link = event.target.closest("a[data-dialog]");
  const copy = event.target.closest("[data-copy]");
  if (link) {
    event.preventDefault();
    dialog(link).catch(() => location.assign(link.href));
  } else if (copy) {
    await navigator.clipboard.writeText(document.getElementById(copy.dataset.copy).textContent);
    copy.textContent = "Copied";
  }
});

let timer;
let turn = 0;
const later = (act) => {
  clearTimeout(timer);
  const mine = ++turn;
  timer = setTimeout(() => act(() => mine === turn).catch(() => {}), 250);
};

for (const form of document.querySelectorAll("form[data-live]")) {
  form.addEventListener("input", () => later(async (current) => {
    const url = `?${new URLSearchParams([...new FormData(form)].filter(([, value]) => value))}`;
    const page = await load(url);
    if (!current()) return;
    if (!page.querySelector(form.dataset.live)) return location.assign(url);
    put(page, form.dataset.live);
    history.replaceState(null, "", url);
  }));
}

for (const form of document.querySelectorAll("form[data-preview]")) {
  form.addEventListener("change", (event) => event.target.name === "scope" && later(async (current) => {
    const body = new URLSearchParams(new FormData(form));
    body.set("preview", "1");
    const page = await load(form.action, body);
    if (current()) put(page, "#preview");
  }));
}

// What is shown once does not come back with the back button.
addEventListener("pagehide", () => document.querySelector("[data-once]")?.remove());
document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
tell(document);
