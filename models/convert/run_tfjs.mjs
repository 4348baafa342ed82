// Runs the source graph in TensorFlow.js (CPU) on one input and writes its six outputs, one raw float32 file each.
// Usage: node run_tfjs.mjs MODEL.json MODEL.bin INPUT.f32 OUTPUT_FOLDER
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createRequire } from 'node:module';

const require = createRequire(join(process.cwd(), 'index.js'));
const tf = require('@tensorflow/tfjs');
const [graphPath, weightsPath, inputPath, outputFolder] = process.argv.slice(2);

const graph = JSON.parse(readFileSync(graphPath, 'utf8'));
const weights = new Uint8Array(readFileSync(weightsPath));
await tf.setBackend('cpu');
const model = await tf.loadGraphModel({
  load: async () => ({
    modelTopology: graph.modelTopology,
    weightSpecs: graph.weightsManifest.flatMap((group) => group.weights),
    weightData: weights.buffer,
    format: graph.format,
    signature: graph.signature,
  }),
});
const input = new Float32Array(new Uint8Array(readFileSync(inputPath)).buffer);
const names = ['Identity', 'Identity_1', 'Identity_2', 'Identity_3', 'Identity_4', 'Identity_5'];
const outputs = await model.executeAsync({ input_1: tf.tensor(input, [1, 3, 416, 416]) }, names);
outputs.forEach((output, index) => {
  writeFileSync(join(outputFolder, `${names[index]}.f32`), new Uint8Array(output.dataSync().buffer));
});
