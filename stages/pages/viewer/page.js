"use strict";

// Symbols. World: the frame of the cameras. A pose is rows of cam_from_world [3][4], OpenCV's axes
// (x right, y down, z forward). Pixels start at the upper left corner, centres at +0.5. Rendering
// follows the trainer: pixel filter 0.3, alpha at most 0.999, nothing below 1/255.

const content = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const canvas = byId("canvas");
const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, preserveDrawingBuffer: true });
if (!gl) {
  byId("status").textContent = "This browser has no WebGL 2.";
  throw Error("no WebGL 2");
}
const TEXELS = 6; // of four floats, for each Gaussian
const ROW = 256; // Gaussians in a row of the texture

const SPLATS = [`#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D table;
uniform mat3 rotation;       // of cam_from_world
uniform vec3 shift;
uniform vec3 eye;
uniform vec4 lens;       // fx, fy, cx, cy in px of the canvas
uniform vec2 size;       // of the canvas, px
uniform bool antialiased;
in uint which;
out vec2 offset;         // from the centre, px
out vec4 color;
flat out vec3 conic;

vec4 texel(int part) {
  int index = int(which);
  return texelFetch(table, ivec2((index % ${ROW}) * ${TEXELS} + part, index / ${ROW}), 0);
}

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);  // outside, unless it is visible
  vec4 first = texel(0), second = texel(1), third = texel(2);
  vec3 point_cam = rotation * first.xyz + shift;
  if (point_cam.z < 0.01) return;
  mat3 spread = mat3(second.x, second.y, second.z, second.y, second.w, third.x,
                     second.z, third.x, third.y);
  spread = rotation * spread * transpose(rotation);
  // Far outside the image the linearised projection is clamped, as in training.
  vec2 margin = 0.15 * size / lens.xy;
  vec2 slope = clamp(point_cam.xy / point_cam.z, -lens.zw / lens.xy - margin,
                     (size - lens.zw) / lens.xy + margin);
  vec3 across = vec3(lens.x, 0.0, -lens.x * slope.x) / point_cam.z;
  vec3 down = vec3(0.0, lens.y, -lens.y * slope.y) / point_cam.z;
  float a = dot(across, spread * across), b = dot(across, spread * down),
        c = dot(down, spread * down);
  float before = a * c - b * b;
  a += 0.3; c += 0.3;
  float after = a * c - b * b;
  float opacity = first.w;
  if (antialiased) opacity *= sqrt(max(0.0, before / after));
  if (opacity < 1.0 / 255.0) return;
  float reach = min(3.33, sqrt(2.0 * log(255.0 * opacity)));
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0 - 1.0;
  offset = corner * reach * sqrt(vec2(a, c));
  conic = vec3(c, -b, a) / after;
  vec3 way = normalize(first.xyz - eye);
  vec4 fourth = texel(3), fifth = texel(4), sixth = texel(5);
  vec3 s0 = vec3(third.zw, fourth.x), s1 = fourth.yzw, s2 = fifth.xyz,
       s3 = vec3(fifth.w, sixth.xy);
  vec3 rgb = 0.5 + 0.28209479 * s0 + 0.48860251 * (-way.y * s1 + way.z * s2 - way.x * s3);
  color = vec4(max(rgb, 0.0), opacity);
  vec2 place = lens.xy * point_cam.xy / point_cam.z + lens.zw + offset;
  gl_Position = vec4(2.0 * place.x / size.x - 1.0, 1.0 - 2.0 * place.y / size.y, 0.0, 1.0);
}`, `#version 300 es
precision highp float;
in vec2 offset;
in vec4 color;
flat in vec3 conic;
out vec4 pixel;
void main() {
  float sigma = 0.5 * (conic.x * offset.x * offset.x + conic.z * offset.y * offset.y)
              + conic.y * offset.x * offset.y;
  float alpha = min(0.999, color.a * exp(-sigma));
  if (sigma < 0.0 || alpha < 1.0 / 255.0) discard;
  pixel = vec4(color.rgb * alpha, alpha);
}`];

const LINES = [`#version 300 es
precision highp float;
uniform mat3 rotation;
uniform vec3 shift;
uniform vec4 lens;
uniform vec2 size;
in vec3 point;
void main() {
  vec3 point_cam = rotation * point + shift;
  // Before the division, so that lines are cut at the camera's plane.
  vec2 place = lens.xy * point_cam.xy + lens.zw * point_cam.z;
  gl_Position = vec4(2.0 * place.x / size.x - point_cam.z, point_cam.z - 2.0 * place.y / size.y,
                     point_cam.z - 0.02, point_cam.z);
}`, `#version 300 es
precision highp float;
uniform vec4 tint;
out vec4 pixel;
void main() { pixel = tint; }`];

function program([vertex, fragment]) {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw Error(gl.getProgramInfoLog(made));
  return made;
}

// --- Gaussians: unpacked on first use -------------------------------------------

async function unpack(model) {
  const packed = Uint8Array.from(atob(model.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const raw = await new Response(stream).arrayBuffer();
  const means = new Float32Array(raw, 0, 3 * model.count);
  const bytes = new Uint8Array(raw, 12 * model.count);
  const columns = model.low.length;
  const steps = model.low.map((low, at) => (model.high[at] - low) / 255);
  const rows = Math.max(1, Math.ceil(model.count / ROW));
  const table = new Float32Array(ROW * TEXELS * 4 * rows);
  const value = new Float32Array(20);
  for (let index = 0; index < model.count; index++) {
    for (let at = 0; at < columns; at++) {
      value[at] = model.low[at] + steps[at] * bytes[index * columns + at];
    }
    const to = index * TEXELS * 4;
    table.set(means.subarray(3 * index, 3 * index + 3), to);
    table[to + 3] = value[0];
    table.set(covariance(value), to + 4);
    table.set(value.subarray(8, 20), to + 10); // harmonics
  }
  return { means, texture: texture(table, rows), order: new Uint32Array(model.count) };
}

/** Upper triangle [6] from log-scales (1 to 3) and a quaternion wxyz (4 to 7). */
function covariance(value) {
  const length = Math.hypot(value[4], value[5], value[6], value[7]) || 1;
  const [w, x, y, z] = [4, 5, 6, 7].map((at) => value[at] / length);
  const rotation = [
    [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
    [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
    [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
  ];
  const squares = [1, 2, 3].map((at) => Math.exp(2 * value[at]));
  const entry = (i, j) => squares.reduce((sum, one, k) => sum + rotation[i][k] * one * rotation[j][k], 0);
  return [entry(0, 0), entry(0, 1), entry(0, 2), entry(1, 1), entry(1, 2), entry(2, 2)];
}

function texture(table, rows) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) {
    gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
  }
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, ROW * TEXELS, rows, 0, gl.RGBA, gl.FLOAT, table);
  return made;
}

/** Farthest first, by counting: depths in 65536 steps. */
function sort(gaussians, pose) {
  const { means, order } = gaussians;
  const [a, b, c, d] = pose[2];
  const depths = new Float32Array(order.length);
  let near = Infinity, far = -Infinity;
  for (let index = 0; index < order.length; index++) {
    const depth = a * means[3 * index] + b * means[3 * index + 1] + c * means[3 * index + 2] + d;
    depths[index] = depth;
    if (depth < near) near = depth;
    if (depth > far) far = depth;
  }
  const scale = 65535 / Math.max(far - near, 1e-9);
  const starts = new Uint32Array(65537);
  const bins = depths.map((depth) => Math.round((far - depth) * scale));
  for (const bin of bins) starts[bin + 1]++;
  for (let bin = 0; bin < 65536; bin++) starts[bin + 1] += starts[bin];
  bins.forEach((bin, index) => { order[starts[bin]++] = index; });
}

// --- Cameras ---------------------------------------------------------------------------------

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [
  a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0],
];
const plus = (a, b, share = 1) => a.map((one, at) => one + share * b[at]);
const unit = (a) => a.map((one) => one / (Math.hypot(...a) || 1));
const eyeOf = (pose) => [0, 1, 2].map((at) => -dot(pose.map((row) => row[at]), pose.map((row) => row[3])));

const up = unit(content.up);
const east = unit(cross(up, Math.abs(up[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0]));
const north = cross(up, east);
const state = { method: "", time: 0, camera: "", around: 0, above: 0, distance: content.distance,
  focus: content.focus };

function free() {
  const level = Math.cos(state.above);
  let away = plus(east.map((one) => one * level * Math.cos(state.around)), north,
    level * Math.sin(state.around));
  away = plus(away, up, Math.sin(state.above));
  const eye = plus(state.focus, away, state.distance);
  const forward = away.map((one) => -one);
  const right = unit(cross(forward, up));
  const rows = [right, cross(forward, right), forward];
  const focal = 1.1 * Math.min(canvas.width, canvas.height);
  return {
    pose: rows.map((row) => [...row, -dot(row, eye)]),
    lens: [focal, focal, canvas.width / 2, canvas.height / 2],
  };
}

/** A camera of the scene, its whole image centred in the canvas. */
function through(camera) {
  const [width, height] = camera.size;
  const scale = Math.min(canvas.width / width, canvas.height / height);
  const [fx, fy, cx, cy] = camera.K.map((one) => one * scale);
  const left = (canvas.width - scale * width) / 2, top = (canvas.height - scale * height) / 2;
  return { pose: camera.pose, lens: [fx, fy, cx + left, cy + top] };
}

/** Leave a camera of the scene: orbit from its position. */
function leaveCamera() {
  const camera = content.cameras.find((one) => one.name === state.camera);
  if (!camera) return;
  const eye = eyeOf(camera.pose), forward = camera.pose[2].slice(0, 3);
  state.distance = Math.max(0.05 * content.distance, dot(plus(content.focus, eye, -1), forward));
  state.focus = plus(eye, forward, state.distance);
  const away = forward.map((one) => -one);
  state.above = Math.asin(Math.max(-1, Math.min(1, dot(away, up))));
  state.around = Math.atan2(dot(away, north), dot(away, east));
  state.camera = "";
}

/** Ends of the lines of a camera's frustum: apex to corners, and the frame. */
function frustum(camera) {
  const [fx, fy, cx, cy] = camera.K, [width, height] = camera.size, eye = eyeOf(camera.pose);
  const depth = 0.07 * content.distance;
  const corners = [[0, 0], [width, 0], [width, height], [0, height]].map(([x, y]) => {
    const ray = [(x - cx) / fx * depth, (y - cy) / fy * depth, depth];
    return plus(eye, [0, 1, 2].map((at) => dot(camera.pose.map((row) => row[at]), ray)));
  });
  const ends = corners.flatMap((one, at) => [eye, one, one, corners[(at + 1) % 4]]);
  // A cross marks cameras that were held out, for eyes that do not tell the colours apart.
  if (camera.role === "target") ends.push(corners[0], corners[2], corners[1], corners[3]);
  return ends.flat();
}

// --- Rendering ---------------------------------------------------------------------------------

const splats = program(SPLATS), lines = program(LINES);
const orders = gl.createBuffer(), splatArray = gl.createVertexArray();
gl.bindVertexArray(splatArray);
gl.bindBuffer(gl.ARRAY_BUFFER, orders);
const which = gl.getAttribLocation(splats, "which");
gl.enableVertexAttribArray(which);
gl.vertexAttribIPointer(which, 1, gl.UNSIGNED_INT, 0, 0);
gl.vertexAttribDivisor(which, 1);
const roles = ["source", "target"].map((role) => {
  const points = content.cameras.filter((one) => one.role === role).flatMap(frustum);
  const array = gl.createVertexArray();
  gl.bindVertexArray(array);
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(points), gl.STATIC_DRAW);
  const point = gl.getAttribLocation(lines, "point");
  gl.enableVertexAttribArray(point);
  gl.vertexAttribPointer(point, 3, gl.FLOAT, false, 0, 0);
  return { array, count: points.length / 3,
    tint: role === "source" ? [0.56, 0.7, 1, 1] : [0.96, 0.6, 0.46, 1] };
});
gl.enable(gl.BLEND);
gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);

const times = [...new Set(content.models.map((one) => one.time))].sort();
const ready = new Map();
let requested = false;

async function draw() {
  requested = false;
  const model = content.models.find((one) => one.method === state.method && one.time === times[state.time]);
  if (!ready.has(model)) ready.set(model, unpack(model));
  const gaussians = await ready.get(model);
  const sharp = Math.min(devicePixelRatio || 1, 2);
  canvas.width = Math.round(canvas.clientWidth * sharp);
  canvas.height = Math.round(canvas.clientHeight * sharp);
  gl.viewport(0, 0, canvas.width, canvas.height);
  gl.clearColor(...model.background, 1);
  gl.clear(gl.COLOR_BUFFER_BIT);
  const camera = content.cameras.find((one) => one.name === state.camera);
  const view = camera ? through(camera) : free();
  sort(gaussians, view.pose);
  setView(splats, view);
  gl.uniform3fv(gl.getUniformLocation(splats, "eye"), eyeOf(view.pose));
  gl.uniform1i(gl.getUniformLocation(splats, "antialiased"), model.antialiased);
  gl.bindTexture(gl.TEXTURE_2D, gaussians.texture);
  gl.bindVertexArray(splatArray);
  gl.bindBuffer(gl.ARRAY_BUFFER, orders);
  gl.bufferData(gl.ARRAY_BUFFER, gaussians.order, gl.DYNAMIC_DRAW);
  gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, model.count);
  if (byId("frusta").checked && !camera) {
    setView(lines, view);
    for (const role of roles) {
      gl.uniform4fv(gl.getUniformLocation(lines, "tint"), role.tint);
      gl.bindVertexArray(role.array);
      gl.drawArrays(gl.LINES, 0, role.count);
    }
  }
  byId("status").textContent = `${model.count.toLocaleString("en")} Gaussians`;
  const root = document.documentElement.dataset;
  root.shown = [state.method, times[state.time], state.camera].join(" ");
  root.drawn = Number(root.drawn || 0) + 1;
}

/** Ground truth beside the render of a camera, where there is one, so that both are largest. */
function placeTruth() {
  const camera = content.cameras.find((one) => one.name === state.camera);
  const source = camera && byId("beside").checked && content.truth[camera.name]?.[times[state.time]];
  const figure = byId("truth"), both = byId("both");
  document.body.classList.toggle("beside", Boolean(source));
  figure.hidden = !source;
  if (!source) return;
  const [width, height] = camera.size, { clientWidth, clientHeight } = both;
  const beside = Math.min(clientWidth / 2 / width, clientHeight / height);
  const below = Math.min(clientWidth / width, clientHeight / 2 / height);
  both.style.flexDirection = beside >= below ? "row" : "column";
  const role = content.roles[camera.role], picture = figure.querySelector("img");
  const caption = figure.querySelector("figcaption");
  if (picture.src !== source) picture.src = source;
  picture.alt = `ground truth of camera ${camera.name}, ${role}, time ${times[state.time]}`;
  caption.textContent = `ground truth, ${role}`;
  caption.className = camera.role === "target" ? "held-out" : "";
}

function setView(made, { pose, lens }) {
  gl.useProgram(made);
  const place = (name) => gl.getUniformLocation(made, name);
  const columns = [0, 1, 2].flatMap((at) => pose.map((row) => row[at]));
  gl.uniformMatrix3fv(place("rotation"), false, columns);
  gl.uniform3fv(place("shift"), pose.map((row) => row[3]));
  gl.uniform4fv(place("lens"), lens);
  gl.uniform2f(place("size"), canvas.width, canvas.height);
}

function requestDraw() {
  byId("method").value = state.method;
  byId("time").value = state.time;
  byId("timestamp").textContent = times[state.time];
  byId("camera").value = state.camera;
  placeTruth();
  if (!requested) requestAnimationFrame(draw);
  requested = true;
}

// --- A path for a film -----------------------------------------------------------------------

const path = [];

/** Keep the view as a key of the path: a pose, and the lens in shares of the canvas. */
function keepView() {
  const camera = content.cameras.find((one) => one.name === state.camera);
  const { pose, lens: [fx, fy, cx, cy] } = camera ? through(camera) : free();
  const { width, height } = canvas;
  path.push({ time: times[state.time], cam_from_world: pose, aspect: width / height,
    lens: [fx / width, fy / height, cx / width, cy / height] });
  byId("keys").textContent = `, ${path.length} kept`;
}

function savePath() {
  if (path.length === 0) keepView();
  const text = JSON.stringify({ scene: content.scene, keys: path }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `${content.scene}_path.json`;
  link.click();
}

// --- Controls --------------------------------------------------------------------------------

function readAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const methods = content.models.map((one) => one.method);
  const known = (list, name, other) => (list.includes(name) ? name : other);
  state.method = known(methods, wanted.get("method"), state.method || methods[0]);
  state.time = Math.max(0, times.indexOf(known(times, wanted.get("time"), times[state.time])));
  state.camera = known(content.cameras.map((one) => one.name), wanted.get("camera"), state.camera);
  requestDraw();
}

function rotateBy(across, down) {
  leaveCamera();
  state.around -= across;
  state.above = Math.max(-1.5, Math.min(1.5, state.above + down));
  requestDraw();
}

function panBy(across, down) {
  leaveCamera();
  const [right, below] = free().pose.map((row) => row.slice(0, 3));
  state.focus = plus(plus(state.focus, right, -across * state.distance), below, -down * state.distance);
  requestDraw();
}

function zoom(factor) {
  leaveCamera();
  state.distance = Math.max(0.02 * content.distance, Math.min(20 * content.distance, state.distance * factor));
  requestDraw();
}

const pointers = new Map();
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
}
canvas.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const apart = () => {
    const [a, b] = [...pointers.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  };
  const first = pointers.size === 2 ? apart() : 0;
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  const across = (event.clientX - before[0]) / canvas.clientHeight;
  const down = (event.clientY - before[1]) / canvas.clientHeight;
  if (pointers.size === 2) zoom(first / Math.max(apart(), 1));
  else if (event.buttons & 2 || event.shiftKey) panBy(across, down);
  else rotateBy(4 * across, 4 * down);
});
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(event.deltaY * 0.001));
}, { passive: false });

function next(list, now) {
  return list[(list.indexOf(now) + 1) % list.length];
}
const keys = {
  ArrowLeft: () => rotateBy(-0.08, 0), ArrowRight: () => rotateBy(0.08, 0),
  ArrowUp: () => rotateBy(0, 0.08), ArrowDown: () => rotateBy(0, -0.08),
  "+": () => zoom(0.9), "=": () => zoom(0.9), "-": () => zoom(1 / 0.9),
  m: () => { state.method = next([...new Set(content.models.map((one) => one.method))], state.method); requestDraw(); },
  t: () => { state.time = (state.time + 1) % times.length; requestDraw(); },
  c: () => { state.camera = next(["", ...content.cameras.map((one) => one.name)], state.camera); requestDraw(); },
  g: () => { byId("beside").checked = !byId("beside").checked; requestDraw(); },
  k: keepView,
  s: savePath,
  h: () => { byId("panel").hidden = !byId("panel").hidden; },
};
addEventListener("keydown", (event) => {
  const inField = event.target.matches("select, input:not([type=checkbox])");
  if (inField || event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});
byId("method").addEventListener("change", (event) => { state.method = event.target.value; requestDraw(); });
byId("time").addEventListener("input", (event) => { state.time = Number(event.target.value); requestDraw(); });
byId("camera").addEventListener("change", (event) => { state.camera = event.target.value; requestDraw(); });
for (const name of ["frusta", "beside"]) byId(name).addEventListener("change", requestDraw);
byId("panel").addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", readAddress);
addEventListener("resize", requestDraw);
/** Start free, between the first camera and its nearest neighbour and a little behind them. */
function startBetween() {
  const [first, ...others] = content.cameras.map((one) => eyeOf(one.pose));
  const apart = (eye) => Math.hypot(...plus(eye, first, -1));
  const [nearest = first] = others.sort((a, b) => apart(a) - apart(b));
  const middle = plus(first, nearest).map((one) => one / 2);
  const away = unit(plus(middle, state.focus, -1));
  state.above = Math.asin(Math.max(-1, Math.min(1, dot(away, up))));
  state.around = Math.atan2(dot(away, north), dot(away, east));
  state.distance = 1.1 * content.distance;
}
startBetween();
readAddress();
