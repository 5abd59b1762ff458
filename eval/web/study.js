// The study's page: one screen a task, answers kept in localStorage, handed over as CSV.
"use strict";

const COLUMNS = ["study", "annotator", "task", "choice", "seconds", "answered"];
const QUESTIONS = {
  alignment: ["Which object looks more like the reference?", "Overlook the background's colour."],
  quality: ["Which object has the better 3D quality?", "Shape, detail and surface on every side. Overlook the background's colour."],
};
const DOUBLE_PRESS_MS = 300;
const element = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

let study = null; // { study, annotator, tasks: [{ task, criterion, prompt, image, left, right }] }
let answers = {}; // by task: { choice, seconds, answered }
let position = 0;
let shownAt = 0;
let playing = !calm;

// --- what is kept ---------------------------------------------------------------------------------

const storageKey = () => `im3d-study:${study.study}:${study.annotator}`;

function load() {
  try {
    answers = JSON.parse(localStorage.getItem(storageKey())) ?? {};
    save();
  } catch {
    element("no-store").hidden = false;
  }
}

function save() {
  try {
    localStorage.setItem(storageKey(), JSON.stringify(answers));
  } catch {
    element("no-store").hidden = false;
  }
}

function csv() {
  const given = study.tasks.filter(({ task }) => answers[task]);
  const rows = given.map(({ task }) => {
    const { choice, seconds, answered } = answers[task];
    return [study.study, study.annotator, task, choice, seconds, answered];
  });
  return [COLUMNS, ...rows].map((row) => row.join(",")).join("\n") + "\n";
}

// --- screens --------------------------------------------------------------------------------------

function show(id) {
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== id;
  element(id).querySelector("h1").focus();
  scrollTo(0, 0);
}

function fail(reason) {
  element("reason").textContent = reason;
  show("problem");
}

function showTask() {
  if (position >= study.tasks.length) return showEnd();
  const { task, criterion, prompt, image, left, right } = study.tasks[position];
  const [question, hint] = QUESTIONS[criterion];
  element("place").textContent = `Question ${position + 1} of ${study.tasks.length}`;
  element("bar").max = study.tasks.length;
  element("bar").value = position;
  element("ask").textContent = question;
  element("hint").textContent = hint;
  element("reference").hidden = criterion !== "alignment";
  element("prompt").textContent = prompt;
  element("image").hidden = !image;
  if (image) element("image").src = image;
  for (const side of ["left", "right"]) {
    element(side).disabled = true;
    element(side).setAttribute("aria-pressed", answers[task]?.choice === side);
  }
  element("back").disabled = position === 0;
  element("trouble").hidden = true;
  shownAt = 0;
  for (const [side, source] of [["left", left], ["right", right]]) setVideo(side, source);
  show("question");
}

function setVideo(side, source) {
  const video = element(`${side}-video`);
  video.src = source;
  video.load();
}

// Choices open when both videos can be seen; both then start at the same moment.
function enable() {
  const videos = [element("left-video"), element("right-video")];
  const ready = videos.every((video) => video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA && !video.error);
  if (shownAt || !ready) return;
  shownAt = performance.now();
  for (const side of ["left", "right"]) element(side).disabled = false;
  play(playing);
}

function play(wanted) {
  playing = wanted;
  element("play").textContent = playing ? "Pause" : "Play";
  for (const side of ["left", "right"]) {
    const video = element(`${side}-video`);
    if (playing) video.play().catch(() => {}); // interrupted by the next question, or forbidden: the button remains
    else video.pause();
  }
}

function choose(choice) {
  const waited = performance.now() - shownAt;
  if (choice !== "unplayable" && (!shownAt || waited < DOUBLE_PRESS_MS)) return;
  const seconds = shownAt ? (waited / 1000).toFixed(1) : "0";
  answers[study.tasks[position].task] = { choice, seconds, answered: new Date().toISOString() };
  save();
  position += 1;
  showTask();
}

function back() {
  if (position === 0) return;
  position -= 1;
  showTask();
}

function showEnd() {
  for (const side of ["left", "right"]) element(`${side}-video`).pause();
  const link = element("save");
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = `answers-${study.annotator}.csv`;
  element("token").textContent = study.annotator;
  element("sent").textContent = "Download your answers and return the file to whoever invited you.";
  show("end");
  collect();
}

// --- a collecting server, where there is one ------------------------------------------------------

async function collect() {
  if (!location.protocol.startsWith("http")) return;
  const found = await fetch("collect").then((answer) => answer.ok && answer.json()).catch(() => null);
  if (found?.study !== study.study) return;
  element("send").hidden = false;
  await send();
}

async function send() {
  element("send").disabled = true;
  element("sent").textContent = "Sending your answers …";
  const request = { method: "POST", headers: { "Content-Type": "text/csv" }, body: csv() };
  const [ok, text] = await fetch("answers", request)
    .then(async (answer) => [answer.ok, await answer.text()])
    .catch(() => [false, "the server cannot be reached"]);
  element("sent").textContent = ok
    ? "Your answers have arrived. You can close this page."
    : `Your answers could not be sent: ${text}. Try again, or download them and return the file.`;
  element("send").disabled = ok;
}

// --- start ----------------------------------------------------------------------------------------

function onKey(event) {
  if (element("question").hidden || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  const onButton = event.target instanceof HTMLButtonElement;
  const actions = {
    ArrowLeft: () => element("left").disabled || choose("left"),
    ArrowRight: () => element("right").disabled || choose("right"),
    " ": () => onButton || play(!playing),
    b: back,
    B: back,
  };
  if (!(event.key in actions) || (event.key === " " && onButton)) return;
  event.preventDefault();
  actions[event.key]();
}

function begin() {
  const missing = study.tasks.findIndex(({ task }) => !answers[task]);
  position = missing < 0 ? study.tasks.length : missing;
  showTask();
}

function open(token) {
  const script = document.createElement("script");
  script.src = `tasks/${token}.js`;
  script.onerror = () => fail(`No questions are known for the code ${token}. Ask whoever invited you for a new link.`);
  script.onload = () => {
    study = globalThis.STUDY;
    load();
    const left = study.tasks.filter(({ task }) => !answers[task]).length;
    const all = study.tasks.length;
    element("count").textContent = left < all ? `${left} of ${all} questions still` : `${all} questions`;
    element("begin").textContent = left < all ? "Go on" : "Start";
    show("start");
  };
  document.head.append(script);
}

for (const side of ["left", "right"]) {
  element(side).addEventListener("click", () => choose(side));
  element(`${side}-video`).addEventListener("loadeddata", enable);
  element(`${side}-video`).addEventListener("error", () => {
    element("trouble").hidden = false;
  });
}
element("unplayable").addEventListener("click", () => choose("unplayable"));
element("back").addEventListener("click", back);
element("review").addEventListener("click", back);
element("play").addEventListener("click", () => play(!playing));
element("begin").addEventListener("click", begin);
element("send").addEventListener("click", send);
element("code-form").addEventListener("submit", (event) => {
  event.preventDefault();
  open(element("code-field").value.trim().toLowerCase());
});
document.addEventListener("keydown", onKey);

const token = new URLSearchParams(location.search).get("a") ?? "";
if (/^[0-9a-f]{10}$/.test(token)) open(token);
else show("code");
