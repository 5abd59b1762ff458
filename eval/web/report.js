// The report's list of assets: paged, searched, sorted. Data come in script files, which a page opened from disk may load.
"use strict";

const PAGE_ROWS = 24;
const element = (id) => document.getElementById(id);
const contents = globalThis.CONTENTS;
globalThis.ASSETS = []; // by shard: { id, prompt, folder, viewer: [...], values: [[...] by column] }
globalThis.FAILED = []; // by shard: { id, prompt, stage, kind, place, message: [...] }

const kinds = {
  assets: { shards: globalThis.ASSETS, count: contents.assets, files: "assets" },
  failed: { shards: globalThis.FAILED, count: contents.failed, files: "failed" },
};
const ranking = contents.columns.findIndex(({ name }) => name === contents.by);
let order = null; // places in the list, or null for the order of the files
let page = 0;
let opened = -1; // position in the list of the asset in the dialog
let question = 0; // counts updates, so that a late answer to an old one is dropped

// --- data -----------------------------------------------------------------------------------------

const loading = new Map(); // by file: a promise

function load(kind, number) {
  const name = `report/${kind.files}-${String(number).padStart(4, "0")}.js`;
  if (!loading.has(name)) {
    const arrived = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = name;
      script.onload = () => (kind.shards[number] ? resolve() : reject(new Error(`${name} holds no data`)));
      script.onerror = () => reject(new Error(`${name} cannot be read; keep report/ beside the page`));
      document.head.append(script);
    });
    loading.set(name, arrived);
    arrived.catch(() => loading.delete(name));
  }
  return loading.get(name);
}

async function loadAll(kind) {
  const numbers = [...Array(Math.ceil(kind.count / contents.shard)).keys()];
  for (let start = 0; start < numbers.length; start += 8) {
    await Promise.all(numbers.slice(start, start + 8).map((number) => load(kind, number)));
  }
}

function row(kind, place) {
  const shard = kind.shards[Math.floor(place / contents.shard)];
  const at = place % contents.shard;
  const found = { place };
  for (const [name, values] of Object.entries(shard)) if (name !== "values") found[name] = values[at];
  found.values = shard.values?.map((column) => column[at]);
  return found;
}

function* everyText(kind) {
  for (const shard of kind.shards) {
    shard.texts ??= shard.id.map((id, at) => `${shard.prompt[at]}\n${id}${shard.stage ? `\n${shard.stage[at]}\n${shard.kind[at]}` : ""}`.toLowerCase());
    yield* shard.texts;
  }
}

// --- the list -------------------------------------------------------------------------------------

const chosen = () => kinds[element("show").value];
const listed = () => (order ? order.length : chosen().count);
const placeOf = (position) => (order ? order[position] : position);

async function update() {
  const asked = ++question;
  const kind = chosen();
  const words = element("query").value.toLowerCase().split(/\s+/).filter(Boolean);
  const column = kind === kinds.failed || !contents.columns.length ? -1 : Number(element("sort").value);
  const down = element("order").value === "down";
  const given = column < 0 || (column === ranking && down === contents.down);
  for (const id of ["sort", "order"]) element(id).disabled = column < 0;
  if (!given || words.length) {
    element("found").textContent = "Loading every row …";
    await loadAll(kind);
    if (asked !== question) return;
  }
  order = words.length ? matching(kind, words) : given ? null : [...Array(kind.count).keys()];
  if (!given) sort(kind, column, down);
  page = 0;
  await render();
}

function matching(kind, words) {
  const found = [];
  let place = 0;
  for (const text of everyText(kind)) {
    if (words.every((word) => text.includes(word))) found.push(place);
    place += 1;
  }
  return found;
}

function sort(kind, column, down) {
  const values = new Float64Array(kind.count);
  let place = 0;
  for (const shard of kind.shards) for (const value of shard.values[column]) values[place++] = value ?? NaN;
  const sign = down ? -1 : 1;
  order.sort((a, b) => {
    const [x, y] = [values[a], values[b]];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
    return sign * (x - y) || a - b;
  });
}

async function render() {
  const asked = question;
  const kind = chosen();
  const count = listed();
  const pages = Math.max(1, Math.ceil(count / PAGE_ROWS));
  page = Math.min(Math.max(page, 0), pages - 1);
  const positions = [...Array(Math.min(PAGE_ROWS, count - page * PAGE_ROWS)).keys()].map((k) => page * PAGE_ROWS + k);
  const shards = new Set(positions.map((position) => Math.floor(placeOf(position) / contents.shard)));
  await Promise.all([...shards].map((number) => load(kind, number)));
  if (asked !== question) return;
  const make = kind === kinds.failed ? letter : card;
  element("cards").replaceChildren(...positions.map((position) => make(row(kind, placeOf(position)), position)));
  element("found").textContent = count
    ? `${(positions[0] + 1).toLocaleString("en")} to ${(positions.at(-1) + 1).toLocaleString("en")} of ${count.toLocaleString("en")}`
    : "Nothing matches.";
  element("pages").hidden = pages === 1;
  element("page").value = page + 1;
  element("page").max = pages;
  element("last-page").textContent = pages.toLocaleString("en");
  for (const id of ["first", "before"]) element(id).disabled = page === 0;
  for (const id of ["next", "last"]) element(id).disabled = page === pages - 1;
}

// --- one asset ------------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made[name] = value;
  made.append(...children);
  return made;
}

const address = (...parts) => (contents.base ?? "") + parts.join("/").split("/").map(encodeURIComponent).join("/");
const picture = (source, alt) => make("img", { loading: "lazy", alt, src: source });
const written = (column, value) =>
  value === null ? "—" : value.toLocaleString("en", { maximumFractionDigits: column.decimals, minimumFractionDigits: column.name === "seed" ? 0 : Math.min(column.decimals, 2), useGrouping: column.name !== "seed" });

// A folder that is no output of im3d generate has files of any name: asset.video and asset.model, or "".
function thumbnails(asset) {
  if (asset.video === undefined) return [picture(address(asset.folder, "image.png"), ""), picture(address(asset.folder, "views/00.png"), "")];
  return asset.video ? [make("video", { src: address(asset.video), preload: "metadata", muted: true, playsInline: true })] : [];
}

function media(asset) {
  const video = (source, label) => figure(make("video", { src: source, loop: true, muted: true, playsInline: true, controls: true,
    autoplay: !matchMedia("(prefers-reduced-motion: reduce)").matches, ariaLabel: label }), label);
  if (asset.video !== undefined) return asset.video ? [video(address(asset.video), "video")] : [];
  return [figure(picture(address(asset.folder, "image.png"), "Reference image"), "reference image"),
    video(address(asset.folder, "generated.mp4"), "generated views"), video(address(asset.folder, "turntable.mp4"), "3D asset, turning")];
}

function links(asset) {
  const link = (source, text) => make("a", { href: source }, text);
  if (asset.model !== undefined) return asset.model ? [link(address(asset.model), asset.model)] : [];
  return [link(address(asset.folder, "asset.ply"), "Gaussians (PLY)"), link(address(asset.folder, "transforms.json"), "cameras")];
}

function card(asset, position) {
  const pictures = make("span", { className: "two" }, ...thumbnails(asset));
  const sorted = contents.columns[Number(element("sort").value)];
  const shown = sorted ? `${written(sorted, asset.values[contents.columns.indexOf(sorted)])} ${sorted.title}` : asset.id;
  const button = make("button", { type: "button" }, pictures,
    make("span", { className: "prompt" }, asset.prompt || asset.id), make("span", { className: "small soft number" }, shown));
  button.addEventListener("click", () => open(position));
  return make("li", {}, button);
}

function letter(failed) {
  return make("li", {}, make("div", { className: "card letter" },
    make("span", { className: "prompt" }, failed.prompt || "(no prompt)"), make("span", { className: "small soft" }, failed.id),
    make("span", { className: "small" }, `${failed.stage}: ${failed.kind}${failed.place && `, ${failed.place}`}`), make("span", { className: "small soft" }, failed.message)));
}

async function open(position) {
  const place = placeOf(position);
  await load(kinds.assets, Math.floor(place / contents.shard));
  opened = position;
  const asset = row(kinds.assets, place);
  element("asset-prompt").textContent = asset.prompt || "(no prompt)";
  element("asset-id").textContent = asset.id;
  element("asset-media").replaceChildren(...media(asset));
  element("asset-facts").replaceChildren(...contents.columns.map((column, k) =>
    make("div", {}, make("dt", {}, column.title), make("dd", {}, written(column, asset.values[k])))));
  element("asset-links").replaceChildren(...links(asset));
  element("asset-orbit").replaceChildren(...(asset.viewer ? [orbitButton(asset)] : asset.model === undefined ? [orbitHint()] : []));
  element("asset-before").disabled = position === 0;
  element("asset-next").disabled = position >= listed() - 1;
  if (!element("asset").open) element("asset").showModal();
  element("asset-prompt").focus();
}

const figure = (media, text) => make("figure", {}, media, make("figcaption", {}, text));

function orbitButton(asset) {
  const button = make("button", { type: "button", className: "main", id: "orbit" }, "Turn it in 3D");
  button.addEventListener("click", () => {
    const source = address("exports/html", `${asset.id}.html`);
    const frame = make("iframe", { title: "3D viewer", allow: "fullscreen; xr-spatial-tracking", src: source });
    element("asset-orbit").replaceChildren(frame);
    frame.focus();
  });
  return button;
}

const orbitHint = () => make("p", { className: "small soft" }, "To turn it in 3D here, run ",
  make("code", {}, "im3d export --run RUN --format html --out RUN/exports"), " and then the report again; or ", make("code", {}, "im3d view --run RUN"), ".");

function close() {
  element("asset-media").replaceChildren(); // stops the videos
  element("asset-orbit").replaceChildren();
}

// --- start ----------------------------------------------------------------------------------------

function guard(work) {
  return (...given) => Promise.resolve(work(...given)).catch((error) => { element("found").textContent = error.message; });
}

function turn(to) {
  page = to;
  guard(render)().then(() => element("found").scrollIntoView({ block: "start" }));
}

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (element("asset").open) {
    if (event.target instanceof HTMLVideoElement) return;
    if (event.key === "ArrowRight" && !element("asset-next").disabled) guard(open)(opened + 1);
    if (event.key === "ArrowLeft" && !element("asset-before").disabled) guard(open)(opened - 1);
  } else if (event.key === "/" && !event.target.matches("input, select")) {
    event.preventDefault();
    element("query").focus();
  }
}

async function openSheet(place) {
  element("query").value = "";
  element("show").value = "assets";
  if (ranking >= 0) element("sort").value = ranking;
  element("order").value = contents.down ? "down" : "up";
  await update();
  await open(place);
}

let typing = 0;
element("query").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(guard(update), 150);
});
element("controls").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["show", "sort", "order"]) element(id).addEventListener("change", guard(update));
element("first").addEventListener("click", () => turn(0));
element("before").addEventListener("click", () => turn(page - 1));
element("next").addEventListener("click", () => turn(page + 1));
element("last").addEventListener("click", () => turn(Math.ceil(listed() / PAGE_ROWS) - 1));
element("page").addEventListener("change", () => turn(Number(element("page").value) - 1));
element("asset-before").addEventListener("click", () => guard(open)(opened - 1));
element("asset-next").addEventListener("click", () => guard(open)(opened + 1));
element("asset-close").addEventListener("click", () => element("asset").close());
element("asset").addEventListener("close", close);
for (const button of document.querySelectorAll(".sheet-row")) {
  button.addEventListener("click", () => guard(openSheet)(Number(button.dataset.place)));
}
document.addEventListener("keydown", onKey);
element("sort").append(...contents.columns.map(({ title }, k) => make("option", { value: k }, title)));
if (ranking >= 0) element("sort").value = ranking;
if (!contents.down) element("order").value = "up";
guard(update)();
